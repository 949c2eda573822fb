"""From trained weights to the checkpoint that ships, and what that checkpoint can do."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.stats import binomtest, norm
from torch import Tensor

from pipeline.archive import Archive
from pipeline.checkpoint import load_weights
from pipeline.engines.base import Spec
from pipeline.engines.build import build_engine
from pipeline.files import whole_file
from pipeline.images import decode_canvas
from pipeline.params.model import ModelParams, Role
from pipeline.params.train import TrainParams
from pipeline.runtime import Runtime
from pipeline.training.data import TrainingData
from pipeline.training.heads import fit_heads, to_state
from pipeline.vit import Weights

_CONFIDENCE = 0.95
_SIGMAS = float(norm.ppf(0.5 + _CONFIDENCE / 2))
# Called with a label and a number of images; what it yields is called with those done since the last call.
Show = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]


@dataclass(frozen=True)
class Publisher:
    """What weights need to become a checkpoint with results."""

    model: ModelParams
    archive: Archive
    data: TrainingData
    sizes_px: Mapping[Role, int]
    runtime: Runtime
    batch_size: int
    params: TrainParams
    show: Show

    def publish(self, path: Path, weights: Weights, about: Mapping[str, Any]) -> dict[str, Any]:
        """Fit a head for every size unless `head_decay` is None, write the checkpoint, and judge that.

        Returns `validation` (see `score_validation`), `differences` (see `compare_sizes`) and, where there
        are heads, `heads`: how they came about, and by role the share of the held-out images that they and
        the shared head get right.
        """
        document: dict[str, Any] = {}
        if self.params.head_decay is not None:
            added, document["heads"] = self._fit_heads(weights)
            weights = replace(weights, state={**weights.state, **added})
            about = {**about, "heads": document["heads"]}
        classes = [wnid for wnid, _ in self.archive.classes]
        write_weights(path, weights, classes, about)
        written = self.model.model_copy(update={"weights": str(path)})
        with self.show("validation", len(self.sizes_px) * len(self.archive.labelled)) as advance:
            right = find_right(
                self.archive,
                load_weights(written, self.sizes_px["high"]),
                self.sizes_px["high"],
                self.sizes_px,
                self.runtime,
                self.batch_size,
                advance,
            )
        return {**document, "validation": score_validation(right), "differences": compare_sizes(right)}

    def _fit_heads(self, weights: Weights) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state's new entries, and what to say of them."""
        params, data = self.params, self.data
        images = len(data.train.labels) + len(data.holdout.labels)
        with self.show("heads", len(self.sizes_px) * images) as advance:
            heads = fit_heads(
                weights, data, self.sizes_px.values(), self.runtime, self.batch_size, params, advance
            )
        fitted = {role: heads[size_px] for role, size_px in self.sizes_px.items()}
        account = {
            "decay": params.head_decay,
            "label_smoothing": params.label_smoothing,
            "distillation": params.distillation,
            "data_sha256": data.sha256,
            "holdout": {
                role: {"own": each.holdout_own, "shared": each.holdout_shared}
                for role, each in fitted.items()
            },
        }
        return to_state(heads), account


def write_weights(path: Path, weights: Weights, classes: list[str], about: Mapping[str, Any]) -> None:
    """float16 tensors; the metadata describes architecture, classes, normalisation and `about`, as JSON."""
    described = {
        "architecture": asdict(weights.architecture),
        "normalisation": weights.normalisation._asdict(),
        "classes": classes,
        **about,
    }
    metadata = {name: json.dumps(value) for name, value in described.items()}
    with whole_file(path) as temporary:
        save_file(
            {name: value.half().contiguous() for name, value in weights.state.items()}, temporary, metadata
        )


def read_about(path: Path) -> dict[str, Any]:
    """The `about` of a checkpoint that `write_weights` wrote; what others wrote stays the text it is."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    own = {"architecture", "normalisation", "classes"}
    return {name: _parse(value) for name, value in metadata.items() if name not in own}


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
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
    expected = torch.tensor([labels[image.wnid] for image in archive.labelled])
    canvases = torch.stack([decode_canvas(archive.read(i.member), canvas_px) for i in archive.labelled])
    right: dict[Role, Tensor] = {}
    for role, size_px in sizes_px.items():
        engine = build_engine(Spec(weights, canvas_px, size_px, runtime), batch_size)
        answers = []
        for part in canvases.split(batch_size):
            answers.append(engine.run(engine.upload(part)).logits.argmax(1).cpu())
            advance(len(part))
        right[role] = torch.cat(answers) == expected
    return right


def score_validation(right: Mapping[Role, Tensor]) -> dict[Role, dict[str, float]]:
    """Top-1 by role, with a Wilson interval at 95 %."""
    return {role: _accuracy(int(values.sum()), len(values)) for role, values in right.items()}


def compare_sizes(right: Mapping[Role, Tensor]) -> dict[str, dict[str, float]]:
    """Top-1 of each role less that of the next smaller one, paired by image, with its 95 % interval."""
    found = {}
    for smaller, larger in pairwise(right):
        difference = right[larger].double() - right[smaller].double()
        mean, half = float(difference.mean()), float(_SIGMAS * difference.std() / len(difference) ** 0.5)
        found[f"{larger}_less_{smaller}"] = {"value": mean, "ci_low": mean - half, "ci_high": mean + half}
    return found


def _accuracy(right: int, count: int) -> dict[str, float]:
    interval = binomtest(right, count).proportion_ci(_CONFIDENCE, method="wilson")
    return {"accuracy": right / count, "ci_low": float(interval.low), "ci_high": float(interval.high)}
