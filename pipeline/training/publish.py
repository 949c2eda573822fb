"""From trained weights to the checkpoint that ships, and what that checkpoint can do."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.stats import binomtest
from torch import Tensor

from pipeline.archive import Archive
from pipeline.checkpoint import load_weights
from pipeline.engines.base import Spec
from pipeline.engines.build import build_engine
from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.images import decode_canvas, stack_canvases
from pipeline.paired import interval_of_difference
from pipeline.params.model import ModelParams, Role
from pipeline.runtime import Runtime
from pipeline.training.own import Fitter, answer
from pipeline.vit import Weights

ENDING = ".safetensors"
# What is told of a run, beside what every checkpoint is described by.
_ABOUT = {"resolutions", "recipe", "data", "run", "stems", "heads"}
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Publisher:
    """What weights need to become a checkpoint with results."""

    model: ModelParams
    archive: Archive
    fitter: Fitter

    def publish(self, path: Path, weights: Weights, about: Mapping[str, Any]) -> dict[str, Any]:
        """Give every size what is its own (see `Fitter.fit`), write the checkpoint, and judge that.

        Returns `validation` (see `score_validation`), `differences` (see `compare_sizes`) and the fitter's
        account, which the checkpoint's metadata gets, too.
        """
        fitter = self.fitter
        weights, account = fitter.fit(weights)
        classes = [wnid for wnid, _ in self.archive.classes]
        write_weights(path, weights, classes, {**about, **account})
        # Without model.classes, which may be of other weights: these have theirs written in them.
        written = self.model.model_copy(update={"weights": str(path), "classes": None})
        with fitter.show("validation", len(fitter.sizes_px) * len(self.archive.labelled)) as advance:
            right = find_right(
                self.archive,
                load_weights(written, fitter.sizes_px["high"]),
                fitter.sizes_px["high"],
                fitter.sizes_px,
                fitter.runtime,
                fitter.batch_size,
                advance,
            )
        return {**account, "validation": score_validation(right), "differences": compare_sizes(right)}


def check_ending(path: Path) -> None:
    """Raises PipelineError where no checkpoint that is written under this name could be read again."""
    if path.suffix != ENDING:
        raise PipelineError(f"{path}: no checkpoint is written under this ending; expected {ENDING}")


def write_weights(path: Path, weights: Weights, classes: list[str], about: Mapping[str, Any]) -> None:
    """float16 tensors; the metadata describes architecture, classes, normalisation and `about`, as JSON.

    What is a text in `about` is written as it is. Raises PipelineError where a number is none in float16.
    """
    halved = {name: value.half().contiguous() for name, value in weights.state.items()}
    if broken := [name for name, value in halved.items() if not value.isfinite().all()]:
        raise PipelineError(
            f"{path}: not written: {broken[0]} holds NaN, or a number beyond float16's; train with a smaller "
            "train.learning_rate"
        )
    described = {
        "architecture": asdict(weights.architecture),
        "normalisation": weights.normalisation._asdict(),
        "classes": classes,
        **about,
    }
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in described.items()
    }
    with whole_file(path) as temporary:
        save_file(halved, temporary, metadata)


def read_about(path: Path) -> dict[str, Any]:
    """The `about` of a checkpoint that `write_weights` wrote; what others wrote stays the text it is.

    Empty for other kinds of files, which say nothing of themselves.
    """
    if path.suffix != ENDING:
        return {}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    described = {"architecture", "normalisation", "classes"}
    return {name: _parse(name, value) for name, value in metadata.items() if name not in described}


def _parse(name: str, text: str) -> Any:
    """Of other programs, text of these names may be anything."""
    try:
        return json.loads(text) if name in _ABOUT else text
    except json.JSONDecodeError:
        return text


def find_right(
    archive: Archive,
    weights: Weights,
    canvas_px: int,
    sizes_px: Mapping[Role, int],
    runtime: Runtime,
    batch_size: int,
    advance: Callable[[int], object],
) -> dict[Role, Tensor]:
    """By role, for every validation image of the archive whether top-1 is right, (N,)."""
    labels = {wnid: label for label, (wnid, _) in enumerate(archive.classes)}
    engines = {
        role: build_engine(Spec(weights, canvas_px, size_px, runtime), batch_size)
        for role, size_px in sizes_px.items()
    }
    right: dict[Role, list[Tensor]] = {role: [] for role in engines}
    for start in range(0, len(archive.labelled), batch_size):
        images = archive.labelled[start : start + batch_size]
        canvases = stack_canvases([decode_canvas(archive.read(image.member), canvas_px) for image in images])
        expected = torch.tensor([labels[image.wnid] for image in images])
        for role, engine in engines.items():
            right[role].append(answer(engine, canvases, advance) == expected)
    return {role: torch.cat(parts) for role, parts in right.items()}


def score_validation(right: Mapping[Role, Tensor]) -> dict[Role, dict[str, float]]:
    """Top-1 by role, with a Wilson interval at 95 %."""
    return {role: _accuracy(int(values.sum()), len(values)) for role, values in right.items()}


def compare_sizes(right: Mapping[Role, Tensor]) -> dict[str, dict[str, float]]:
    """Top-1 of each role less that of the next smaller one, paired by image, with its 95 % score interval."""
    found = {}
    for smaller, larger in pairwise(right):
        difference = (right[larger].double() - right[smaller].double()).numpy()
        found[f"{larger}_less_{smaller}"] = interval_of_difference(difference, _CONFIDENCE)._asdict()
    return found


def _accuracy(right: int, count: int) -> dict[str, float]:
    interval = binomtest(right, count).proportion_ci(_CONFIDENCE, method="wilson")
    return {"accuracy": right / count, "ci_low": float(interval.low), "ci_high": float(interval.high)}
