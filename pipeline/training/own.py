"""What each image size gets to itself when the network is done: a patch embedding, then a classifier."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.engines.base import Engine, Spec
from pipeline.engines.build import build_engine
from pipeline.params.model import Role
from pipeline.params.train import TrainParams
from pipeline.runtime import Runtime
from pipeline.training.data import TrainingData
from pipeline.training.heads import fit_heads, to_state
from pipeline.training.stems import fit_stems
from pipeline.vit import Weights, without_own

# Called with a label and a number of images; what it yields is called with those done since the last call.
Show = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]


@dataclass(frozen=True)
class Fitter:
    """Training images, and how to run the network on them."""

    data: TrainingData
    sizes_px: Mapping[Role, int]
    runtime: Runtime
    batch_size: int
    params: TrainParams
    show: Show

    def fit(self, weights: Weights) -> tuple[Weights, dict[str, Any]]:
        """The weights with what `stem_blur` and `head_decay` ask for, and an account of it.

        The account has `stems` and `heads`, each where it was asked for: how they came about, and by role the
        share of the held-out images that are right with them (`own`) and without (`shared`). Stems are judged
        under the head that all sizes share, heads with the stems.
        """
        account: dict[str, Any] = {}
        if self.params.stem_blur is not None:
            stems, account["stems"] = self._fit_stems(weights, self.params.stem_blur)
            weights = _add(weights, stems)
        if self.params.head_decay is not None:
            heads, account["heads"] = self._fit_heads(weights)
            weights = _add(weights, heads)
        return weights, account

    def _fit_stems(self, weights: Weights, blur_px: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
        stems = fit_stems(weights, self.data.train.pixels, self.sizes_px.values(), blur_px)
        plain = without_own(weights, {"patch_embed", "head"})
        with self.show("stems", 2 * len(self.sizes_px) * len(self.data.holdout.labels)) as advance:
            shared, own = (self._score(each, advance) for each in (plain, _add(plain, stems)))
        holdout = {role: {"own": own[role], "shared": shared[role]} for role in self.sizes_px}
        return stems, {"blur_px": blur_px, **self._describe(), "holdout": holdout}

    def _describe(self) -> dict[str, Any]:
        """Of which images, at which sizes."""
        return {
            "sizes_px": dict(self.sizes_px),
            "seed": self.params.seed,
            "holdout_per_class": self.params.holdout_per_class,
            "data_sha256": self.data.sha256,
        }

    def _score(self, weights: Weights, advance: Callable[[int], object]) -> dict[Role, float]:
        """Share of the held-out images that each role gets right."""
        pixels, labels = self.data.holdout
        found: dict[Role, float] = {}
        for role, size_px in self.sizes_px.items():
            engine = build_engine(Spec(weights, pixels.shape[-1], size_px, self.runtime), self.batch_size)
            right = answer(engine, pixels, advance) == labels
            found[role] = float(right.double().mean())
        return found

    def _fit_heads(self, weights: Weights) -> tuple[dict[str, Tensor], dict[str, Any]]:
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
            **self._describe(),
            "holdout": {
                role: {"own": each.holdout_own, "shared": each.holdout_shared}
                for role, each in fitted.items()
            },
        }
        return to_state(heads), account


def answer(engine: Engine, canvases: Tensor, advance: Callable[[int], object]) -> Tensor:
    """Top-1 (N,) on the CPU, of canvases uint8 (N, 3, S, S)."""
    answers = []
    for part in canvases.split(engine.batch_size):
        answers.append(engine.run(engine.upload(part)).logits.argmax(1).cpu())
        advance(len(part))
    return torch.cat(answers)


def _add(weights: Weights, entries: Mapping[str, Tensor]) -> Weights:
    return replace(weights, state={**weights.state, **entries})
