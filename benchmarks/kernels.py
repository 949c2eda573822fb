"""What a pass of one of torch's engines is made of, by torch's profiler: kernels on a GPU, else operators."""

import re
import time
from typing import Any

from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pipeline.cascade import Bench
from pipeline.engines.base import Engine
from pipeline.engines.build import build_engine
from pipeline.params.model import Role

PRODUCTS, OTHERS, WAITING = "products", "GELU, sums", "waiting, calls"
# A kernel belongs to the first kind that its name fits, or to OTHERS.
_KINDS = {
    "attention": r"attention|flash|fmha|softmax",
    PRODUCTS: r"gemm|gemv|splitk|cutlass|xmma|nvjet|conv(?!ert)|addmm|bmm|::mm|matmul|linear",
    "norms": r"norm",
    "moves, resize": r"copy|memcpy|memset|::cat|upsample|resize|interp",
}
_WARM_UPS = 20
# Names of kernels that are kept in the results, so that a reader can check their kinds.
_NAMED = 12


def ask_torch(bench: Bench, role: Role, canvases: Tensor) -> dict[str, Any]:
    """Mean time of a pass over one image, and of its kernels by kind, ms; `kernels_ms` names the longest.

    What no kernel accounts for is waiting: for launches, for the host, for the caller. On a CPU the profiler
    slows the operators themselves, so their times are taken as shares of the pass that was profiled.
    """
    engine = build_engine(bench.spec(role), 1)
    images = canvases.split(1)
    _answer(engine, images[:_WARM_UPS])
    pass_ms = _answer(engine, images)
    on_gpu = bench.runtime.device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        profiled_ms = _answer(engine, images)
    kernels_ms: dict[str, float] = {}
    for event in profiler.key_averages():
        if (event.device_type.name == "CUDA") == on_gpu:
            taken_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            kernels_ms[event.key] = taken_us / 1e3 / len(images)
    scale = 1.0 if on_gpu else pass_ms / profiled_ms
    parts_ms = dict.fromkeys([*_KINDS, OTHERS], 0.0)
    for name, taken_ms in kernels_ms.items():
        parts_ms[kind_of(name)] += scale * taken_ms
    parts_ms[WAITING] = pass_ms - sum(parts_ms.values())
    longest = sorted(kernels_ms, key=lambda name: -kernels_ms[name])[:_NAMED]
    return {
        "pass_ms": pass_ms,
        "parts_ms": parts_ms,
        "kernels_ms": {name: scale * kernels_ms[name] for name in longest},
    }


def kind_of(kernel: str) -> str:
    """Of a kernel's or an operator's name."""
    fitting = (kind for kind, pattern in _KINDS.items() if re.search(pattern, kernel, re.IGNORECASE))
    return next(fitting, OTHERS)


def _answer(engine: Engine, images: tuple[Tensor, ...]) -> float:
    """Mean ms of an answer on the host."""
    started_s = time.perf_counter()
    for image in images:
        engine.predict(engine.upload(image))
    return 1e3 * (time.perf_counter() - started_s) / len(images)
