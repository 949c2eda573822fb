"""`cudagraph`: every kernel of a pass captured once for each batch size, and launched as one.

A small model at batch one is bound by its launches. Resize, passes, proxy and what a policy reads of them
are inside the captured graph; choosing what to escalate cannot be, since the number of images it leaves is
not known beforehand.
"""

import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from operator import attrgetter

import torch
from torch import Tensor

from pipeline.engines.base import Answer, Engine, Spec, halvings, join, summarize
from pipeline.engines.compiled import Model, compiled_model, fused_model
from pipeline.images import resize

_TIMED_S = 0.02


class CudaGraphEngine(Engine):
    """A batch runs in the captured size that holds it, or in two where that takes less time.

    What is left of a size is not read.
    """

    def __init__(self, spec: Spec, batch_size: int) -> None:
        super().__init__(spec, batch_size)
        self.passes = _capture_all(list_models(spec), spec, batch_size)
        seconds = {size: captured.seconds for size, captured in self.passes.items()}
        self.parts = cache(partial(split_cheapest, seconds=seconds))

    def run(self, canvases: Tensor) -> Answer:
        whole, *rest = canvases.split(self.parts(len(canvases)))
        if not rest:
            return self._holding(whole).run(whole)
        # Both parts can be of one captured size, whose outputs the second overwrites.
        return join([self._holding(part).run(part).each(torch.clone) for part in (whole, *rest)])

    def summarize(self, canvases: Tensor) -> Tensor:
        whole, *rest = canvases.split(self.parts(len(canvases)))
        if not rest:
            return self._holding(whole).summarize(whole)
        return torch.cat([self._holding(part).summarize(part).clone() for part in (whole, *rest)], dim=1)

    def _holding(self, canvases: Tensor) -> "_Captured":
        return self.passes[next(size for size in self.passes if size >= len(canvases))]


def captured_sizes(batch_size: int) -> list[int]:
    """Ascending: the halvings of the batch and three quarters of each, so that at most a third is idle."""
    return sorted({size for half in halvings(batch_size) for size in (half, max(1, 3 * half // 4))})


def list_models(spec: Spec) -> list[Model]:
    """All that a pass could be captured of: which takes least time depends on the size of the batch.

    Where numbers are float32, one of them multiplies sums of two bfloat16 instead, on the units that do.
    """
    split = [compiled_model(spec, split=True)] if spec.runtime.precision == "float32" else []
    return [fused_model(spec), compiled_model(spec), *split]


def split_cheapest(count: int, seconds: dict[int, float]) -> list[int]:
    """One part or two, the first of them a full size, that add up to `count`: what takes least time.

    seconds: of a pass, by the ascending sizes that were captured.
    """

    def cost_s(part: int) -> float:
        return next(taken_s for size, taken_s in seconds.items() if size >= part)

    ways = [[count], *([size, count - size] for size in reversed(seconds) if size < count)]
    return min(ways, key=lambda parts: sum(map(cost_s, parts)))


class _Captured:
    """One graph with its input and its outputs, all allocated once; seconds: of a pass."""

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
            # Else cuBLAS would go on with what it allocated in the graph before, and free it with that one.
            torch._C._cuda_clearCublasWorkspaces()
            with torch.cuda.graph(self.graph):
                self.answer = work()
                self.summary = summarize(self.answer)
        self.seconds = _time_s(self.graph)

    def run(self, canvases: Tensor) -> Answer:
        self._replay(canvases)
        return self.answer.each(lambda value: value[: len(canvases)])

    def summarize(self, canvases: Tensor) -> Tensor:
        """As the engine's."""
        self._replay(canvases)
        return self.summary[:, : len(canvases)]

    def _replay(self, canvases: Tensor) -> None:
        self.canvases[: len(canvases)].copy_(canvases, non_blocking=True)
        self.graph.replay()


def _warm_up(work: Callable[[], Answer]) -> None:
    """Compiles, and makes what libraries keep; on a stream of its own, as capturing asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)


def _capture_all(models: Sequence[Model], spec: Spec, batch_size: int) -> dict[int, _Captured]:
    """By size, ascending. The halvings try all models; the sizes between take what the next larger took."""
    captured: dict[int, _Captured] = {}
    tried = models
    # The largest first, for whose size a compiler then chooses its kernels.
    for size in reversed(captured_sizes(batch_size)):
        captured[size] = _capture_fastest(models if size in halvings(batch_size) else tried, spec, size)
        tried = [captured[size].model]
    return dict(reversed(captured.items()))


def _capture_fastest(models: Sequence[Model], spec: Spec, size: int) -> _Captured:
    """The graph of the model that takes least time."""
    return min((_Captured(model, spec, size) for model in models), key=attrgetter("seconds"))


def _time_s(graph: torch.cuda.CUDAGraph) -> float:
    """Of one replay, from as many as fit a moment."""
    once_s = _replay_s(graph, 1)
    runs = int(_TIMED_S / once_s)
    return _replay_s(graph, runs) / runs if runs > 1 else once_s


def _replay_s(graph: torch.cuda.CUDAGraph, runs: int) -> float:
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    for _ in range(runs):
        graph.replay()
    torch.cuda.synchronize()
    return time.perf_counter() - started_s
