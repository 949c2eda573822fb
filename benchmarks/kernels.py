"""What a pass of one of torch's engines is made of, by torch's profiler: kernels on a GPU, else operators."""

import re
import time
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pipeline.answers import PolicyName
from pipeline.cascade import Bench, Cascade
from pipeline.params.model import Role

PRODUCTS, OTHERS, WAITING = "products", "GELU, sums", "waiting, calls"
UPLOAD = "from the host"
_NORMS = {"norms": r"norm"}
# A kernel belongs to the first kind that its name fits, or to OTHERS.
_KINDS = {
    "attention": r"attention|flash|fmha|softmax",
    PRODUCTS: r"gemm|gemv|splitk|cutlass|xmma|nvjet|conv(?!ert)|addmm|bmm|::mm|matmul|linear",
    **_NORMS,
    UPLOAD: r"htod",
    "moves, resize": r"copy|memcpy|memset|::cat|upsample|resize|interp",
}
_WARM_UPS = 20
# Batches that are profiled one after another.
_BATCHES = 8
# Names of kernels that are kept in the results, so that a reader can check their kinds.
_NAMED = 12


def ask_torch(bench: Bench, role: Role, canvases: Tensor, batch_size: int = 1) -> dict[str, Any]:
    """Mean time of a pass and of its kernels by kind, ms per image; `kernels_ms` names the longest.

    What no kernel accounts for is waiting: for launches, for the host, for the caller. Of batches, images
    come from the host beside the other kernels. On a CPU the profiler slows the operators themselves, so
    their times are taken as shares of the pass that was profiled.
    """
    cascade = bench.build({role: batch_size})
    if batch_size > 1:
        canvases = canvases[torch.arange(_BATCHES * batch_size) % len(canvases)]
    _answer(cascade, role, canvases[: max(_WARM_UPS, batch_size)], batch_size)
    pass_ms = _answer(cascade, role, canvases, batch_size)
    on_gpu = bench.runtime.device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        profiled_ms = _answer(cascade, role, canvases, batch_size)
    kernels_ms: dict[str, float] = {}
    for event in profiler.key_averages():
        if (event.device_type.name == "CUDA") == on_gpu:
            taken_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            kernels_ms[event.key] = taken_us / 1e3 / len(canvases)
    scale = 1.0 if on_gpu else pass_ms / profiled_ms
    parts_ms = dict.fromkeys([*_KINDS, OTHERS], 0.0)
    for name, taken_ms in kernels_ms.items():
        parts_ms[kind_of(name)] += scale * taken_ms
    beside_ms = parts_ms[UPLOAD] if batch_size > 1 else 0.0
    parts_ms[WAITING] = pass_ms - (sum(parts_ms.values()) - beside_ms)
    longest = sorted(kernels_ms, key=lambda name: -kernels_ms[name])[:_NAMED]
    return {
        "batch_size": batch_size,
        "pass_ms": pass_ms,
        "parts_ms": parts_ms,
        "kernels_ms": {name: scale * kernels_ms[name] for name in longest},
    }


def kind_of(kernel: str) -> str:
    """Of a kernel's or an operator's name. A compiler's kernel is named by what is around it, too."""
    kinds = _NORMS if kernel.startswith("triton_") else _KINDS
    fitting = (kind for kind, pattern in kinds.items() if re.search(pattern, kernel, re.IGNORECASE))
    return next(fitting, OTHERS)


def _answer(cascade: Cascade, role: Role, canvases: Tensor, batch_size: int) -> float:
    """Mean ms per image of answers on the host, one image at a time or in batches."""
    name: PolicyName = f"static_{role}"  # type: ignore[assignment]
    started_s = time.perf_counter()
    for part in [canvases] if batch_size > 1 else canvases.split(1):
        cascade.answer(name, part)
    return 1e3 * (time.perf_counter() - started_s) / len(canvases)
