"""What a run starts from: random weights, or those of a file, whose head may be for other classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.architecture import Architecture
from pipeline.checkpoint import load_backbone
from pipeline.errors import PipelineError
from pipeline.params.model import ModelParams
from pipeline.params.train import TrainParams
from pipeline.training.data import TrainingData
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


def check_held_out(
    about: Mapping[str, Any], params: TrainParams, data: TrainingData, same_classes: bool
) -> None:
    """Of the images that weights were trained on, as they say, the same must be held out as then.

    about: as `publish.read_about` reads it. same_classes: the data has those of the weights, so that its
    images may be the same, whatever their digest, which is another at another size.
    """
    recipe, trained_on = (_object(about.get(name)) for name in ("recipe", "data"))
    if not same_classes and trained_on.get("sha256") not in (None, data.sha256):
        return
    for name in ("seed", "holdout_per_class"):
        if name in recipe and recipe[name] != getattr(params, name):
            raise PipelineError(
                f"train.{name}: {getattr(params, name)}, but the weights were trained with {recipe[name]}: "
                "images would be held out that they have learned from; set it to that"
            )


def has_other_images(about: Mapping[str, Any], high_px: int, data: TrainingData) -> bool:
    """Whether weights were trained on others, as they say, among which some of those held out may be.

    Told only at the size at which their digest was made.
    """
    known = _object(about.get("data")).get("sha256")
    same_size = _object(about.get("resolutions")).get("high") == high_px
    return known is not None and same_size and known != data.sha256


def check_data(about: Mapping[str, Any], high_px: int, data: TrainingData, archive: Path) -> None:
    """Raises PipelineError where it `has_other_images`."""
    if has_other_images(about, high_px, data):
        raise PipelineError(
            f"{archive}: has other training images than the weights were trained on, so that images would be "
            "held out that they have learned from; use the archive that they were trained on"
        )


def _object(value: Any) -> Mapping[str, Any]:
    """What another program wrote may be anything."""
    return value if isinstance(value, Mapping) else {}
