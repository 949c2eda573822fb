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
    batches: Mapping[str, Mapping[Role, int]],
    usual: UsualWay,
    canvases: Tensor,
) -> dict[str, dict[str, float | None]]:
    """Peak growth of a process that runs one policy alone, MB, by system and policy.

    batches: by system and role. Where they are of one image, the canvases come one by one, else together.
    """
    runtime = benches["eager float32"].runtime
    work: dict[str, Callable[[PolicyName], None]] = {
        name: partial(_run_engine, bench, batches[name], canvases) for name, bench in benches.items()
    }
    work[USUAL] = partial(_run_usual, weights, sizes_px, usual.threshold, runtime, canvases)
    return {
        name: {policy: peak_memory_mb(partial(run, policy), runtime.device) for policy in NEEDS}
        for name, run in work.items()
    }


def _run_engine(bench: Bench, batch_sizes: Mapping[Role, int], canvases: Tensor, policy: PolicyName) -> None:
    prepare_process(bench.runtime)
    cascade = bench.build({role: batch_sizes[role] for role in NEEDS[policy]})
    for part in canvases.split(1 if max(batch_sizes.values()) == 1 else len(canvases)):
        cascade.answer(policy, part)


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
