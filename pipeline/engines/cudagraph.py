"""`cudagraph`: every kernel of a pass captured once for each batch size, and launched as one.

A small model at batch one is bound by its launches. Resize, passes and proxy are inside the captured graph;
choosing what to escalate cannot be, since the number of images it leaves is not known beforehand.
"""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.engines.base import Answer, Engine, Spec, halvings
from pipeline.engines.compiled import Model, compiled_model, fused_model
from pipeline.images import resize

_WARM_UPS = 3
_TIMED_S = 0.05
_FEWEST_RUNS = 3


class CudaGraphEngine(Engine):
    """A batch runs in the smallest captured size that holds it; what is left of that size is not read."""

    def __init__(self, spec: Spec, batch_size: int) -> None:
        super().__init__(spec, batch_size)
        models: list[Model] = [fused_model(spec), compiled_model(spec)]
        self.passes = {size: _capture_fastest(models, spec, size) for size in captured_sizes(batch_size)}

    def run(self, canvases: Tensor) -> Answer:
        size = next(size for size in self.passes if size >= len(canvases))
        return self.passes[size](canvases)


def captured_sizes(batch_size: int) -> list[int]:
    """Ascending: the halvings of the batch and three quarters of each, so that at most a third is idle."""
    return sorted({size for half in halvings(batch_size) for size in (half, max(1, 3 * half // 4))})


class _Captured:
    """One graph with its input and its outputs, all allocated once."""

    def __init__(self, model: Model, spec: Spec, size: int) -> None:
        shape = (size, 3, spec.canvas_px, spec.canvas_px)
        # The graph reads the weights where they lay when it was captured: they must live as long as it does.
        self.model = model
        self.canvases = torch.zeros(shape, dtype=torch.uint8, device=spec.runtime.device)
        self.graph = torch.cuda.CUDAGraph()

        def work() -> Answer:
            return Answer(*model(resize(self.canvases, spec.size_px)))

        # Not inference_mode, for which the compiled engine's model would be compiled once more.
        with torch.no_grad():
            _warm_up(work)
            with torch.cuda.graph(self.graph):
                self.answer = work()

    def __call__(self, canvases: Tensor) -> Answer:
        self.canvases[: len(canvases)].copy_(canvases, non_blocking=True)
        self.graph.replay()
        return self.answer.each(lambda value: value[: len(canvases)])


def _warm_up(work: Callable[[], Answer]) -> None:
    """On a stream of its own, as capturing asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)


def _capture_fastest(models: Sequence[Model], spec: Spec, size: int) -> _Captured:
    """The graph of the model that takes least time."""
    return min((_Captured(model, spec, size) for model in models), key=_time_s)


def _time_s(captured: _Captured) -> float:
    """Of one replay, from as many as fit a moment."""
    once_s = _replay_s(captured, 1)
    runs = max(_FEWEST_RUNS, int(_TIMED_S / once_s))
    return _replay_s(captured, runs) / runs


def _replay_s(captured: _Captured, runs: int) -> float:
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    for _ in range(runs):
        captured.graph.replay()
    torch.cuda.synchronize()
    return time.perf_counter() - started_s
