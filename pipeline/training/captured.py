"""A loss and its gradients; on a GPU as one captured graph: starting kernels takes longer than they do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.training.augment import Mixed

# Compilation, the libraries' choice of kernels and their workspaces come before the capture.
_WARM_UPS = 3


def backward(compute: Callable[[Mixed], Tensor], batch: Mixed, model: nn.Module) -> Tensor:
    """The loss of a batch; its gradients take the place of those that the model had."""
    for value in model.parameters():
        value.grad = None
    loss = compute(batch)
    loss.backward()
    return loss.detach()


class CapturedLoss:
    """`backward` of a fixed function and batch size, captured once and replayed for every batch after.

    The graph reads a batch and writes gradients in memory of its own: the model's must not be replaced.
    """

    def __init__(self, compute: Callable[[Mixed], Tensor], batch: Mixed, model: nn.Module) -> None:
        self.batch = Mixed(*(value.clone() for value in batch))
        # What the warm-ups draw is undone: a run taken up again draws as one that was not stopped.
        with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
            self._capture(compute, model)

    def _capture(self, compute: Callable[[Mixed], Tensor], model: nn.Module) -> None:
        aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                backward(compute, self.batch, model)
        here.wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = backward(compute, self.batch, model)

    def __call__(self, batch: Mixed) -> Tensor:
        for mine, values in zip(self.batch, batch, strict=True):
            mine.copy_(values)
        self.graph.replay()
        return self.loss.clone()
