"""Peak memory of each policy of each system, in a process of its own."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from benchmarks.usual import USUAL, UsualWay
from pipeline.answers import NEEDS, PolicyName
from pipeline.cascade import Bench
from pipeline.memory import peak_memory_mb
from pipeline.params.model import Role
from pipeline.runtime import Runtime, prepare_process
from pipeline.vit import Weights


def measure_peaks(
    weights: Weights,
    sizes_px: Mapping[Role, int],
    benches: Mapping[str, Bench],
    usual: UsualWay,
    canvases: Tensor,
) -> dict[str, dict[str, float | None]]:
    """Peak growth of a process that runs one policy alone, MB, one image at a time."""
    runtime = benches["eager float32"].runtime
    work: dict[str, Callable[[PolicyName], None]] = {
        name: partial(_run_engine, bench, canvases) for name, bench in benches.items()
    }
    work[USUAL] = partial(_run_usual, weights, sizes_px, usual.threshold, runtime, canvases)
    return {
        name: {policy: peak_memory_mb(partial(run, policy), runtime.device) for policy in NEEDS}
        for name, run in work.items()
    }


def _run_engine(bench: Bench, canvases: Tensor, policy: PolicyName) -> None:
    prepare_process(bench.runtime)
    cascade = bench.build(dict.fromkeys(NEEDS[policy], 1))
    for canvas in canvases.split(1):
        cascade.answer(policy, canvas)


def _run_usual(
    weights: Weights,
    sizes_px: Mapping[Role, int],
    threshold: float,
    runtime: Runtime,
    canvases: Tensor,
    policy: PolicyName,
) -> None:
    prepare_process(runtime)
    UsualWay(weights, sizes_px, runtime.device, direction=1, threshold=threshold).answer(policy, canvases)
