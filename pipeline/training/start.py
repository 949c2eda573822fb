"""What a run starts from: random weights, or those of a file, whose head may be for other classes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pipeline.architecture import Architecture
from pipeline.checkpoint import load_backbone
from pipeline.errors import PipelineError
from pipeline.params.model import ModelParams
from pipeline.vit import Weights
from pipeline.zoo import IMAGENET, Normalisation, find_network


class Start(NamedTuple):
    """architecture: of the run. weights: to go on from, None for random ones. with_head: theirs is kept."""

    architecture: Architecture
    weights: Weights | None = None
    with_head: bool = False

    @property
    def normalisation(self) -> Normalisation:
        return self.weights.normalisation if self.weights else IMAGENET

    @property
    def sha256(self) -> str | None:
        return self.weights.sha256 if self.weights else None


def read_start(model: ModelParams, start: str, native_px: int, classes: Sequence[str]) -> Start:
    """start: `random`, or a file of the model's weights; classes: the data's wnids in label order.

    A head that was made for the same classes in the same order is kept; for others one is drawn anew, of as
    many classes as the data has. Raises PipelineError where the file does not fit `model.name`.
    """
    if start == "random":
        shape = find_network(model.name).architecture
        return Start(shape if shape.classes else replace(shape, classes=len(classes)))
    try:
        # Without model.classes, which is of the weights that will be.
        weights = load_backbone(model.model_copy(update={"weights": start}), native_px)
    except PipelineError as error:  # Which speaks of the parameter that names weights elsewhere.
        raise PipelineError(str(error).replace("model.weights", "train.start")) from None
    if weights.classes == tuple(classes):
        return Start(weights.architecture, weights, with_head=True)
    return Start(replace(weights.architecture, classes=len(classes)), weights)
