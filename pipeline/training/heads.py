"""A classifier for each image size, fitted when the network is done, on the images as they are.

Crops, mixed images and the sum over all sizes make good features; the classifier that comes with them is the
best one neither for whole images nor for any one size. So the network stays as it is, and its last layer is
fitted once more for each size: a convex problem on embeddings, which takes minutes on a CPU. (Fitting the
classifier at the size of the test: FixRes, Touvron et al. 2019.)
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engines.base import Engine, Spec
from pipeline.engines.build import build_engine
from pipeline.params.train import TrainParams
from pipeline.runtime import Runtime
from pipeline.training.data import TrainingData
from pipeline.vit import Weights, own_name

# Of L-BFGS, whose loss changes little beyond.
_ITERATIONS = 40


class Head(NamedTuple):
    """weight (C, D) and bias (C,): embeddings (B, D) to logits (B, C)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, embeddings: Tensor) -> Tensor:
        return F.linear(embeddings, self.weight, self.bias)


@dataclass(frozen=True)
class FittedHead:
    """A size's own head; shares of the held-out images that it and the shared one get right."""

    head: Head
    holdout_own: float
    holdout_shared: float


def fit_heads(
    weights: Weights,
    data: TrainingData,
    sizes_px: Iterable[int],
    runtime: Runtime,
    batch_size: int,
    params: TrainParams,
    advance: Callable[[int], object],
) -> dict[int, FittedHead]:
    """By image size; `advance` is called with the number of images embedded since the last call.

    The head of the largest size learns from the labels, the others also from what the largest then answers.
    """
    shared = Head(*(weights.state[name].to(runtime.device) for name in ("head.weight", "head.bias")))
    found: dict[int, FittedHead] = {}
    answers: Tensor | None = None
    for size_px in sorted(sizes_px, reverse=True):
        engine = build_engine(Spec(weights, data.train.pixels.shape[-1], size_px, runtime), batch_size)
        learned, held = (embed(engine, images.pixels, advance) for images in (data.train, data.holdout))
        head = fit_head(shared, learned, data.train.labels.to(runtime.device), answers, params)
        if answers is None:
            answers = head(learned).softmax(dim=1)
        own, old = (_accuracy(each(held), data.holdout.labels) for each in (head, shared))
        found[size_px] = FittedHead(head, own, old)
    return found


def to_state(heads: dict[int, FittedHead]) -> dict[str, Tensor]:
    """On the CPU, by the names of a `Weights.state`."""
    return {
        own_name(f"head.{name}", size_px): value.cpu()
        for size_px, fitted in heads.items()
        for name, value in fitted.head._asdict().items()
    }


def embed(engine: Engine, pixels: Tensor, advance: Callable[[int], object]) -> Tensor:
    """Canvases uint8 (N, 3, S, S) to embeddings (N, D), on the engine's device."""
    parts = []
    for canvases in pixels.split(engine.batch_size):
        parts.append(engine.run(engine.upload(canvases)).embedding.clone())
        advance(len(canvases))
    return torch.cat(parts)


@torch.enable_grad()
def fit_head(
    shared: Head, embeddings: Tensor, labels: Tensor, answers: Tensor | None, params: TrainParams
) -> Head:
    """The head of least loss for embeddings (N, D), labels (N,) and, where given, others' answers (N, C).

    The loss is the training's (smoothed labels, and the distance from the answers), plus `head_decay` times
    the squared distance of the weight from the shared one.
    """
    weight, bias = (value.detach().clone().requires_grad_() for value in shared)
    solver = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def compute_loss() -> float:
        solver.zero_grad()
        logits = Head(weight, bias)(embeddings)
        loss = F.cross_entropy(logits, labels, label_smoothing=params.label_smoothing)
        if answers is not None:
            distance = F.kl_div(logits.log_softmax(dim=1), answers, reduction="batchmean")
            loss = loss + params.distillation * distance
        loss = loss + (params.head_decay or 0.0) * (weight - shared.weight).square().sum()
        loss.backward()
        return float(loss.detach())

    solver.step(compute_loss)
    return Head(weight.detach(), bias.detach())


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(dim=1).cpu() == labels).double().mean())
