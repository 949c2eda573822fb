"""What a pass is made of: where its time goes, what the processor could do, what changing roles costs.

This is what a missed goal is explained with. Images come one at a time.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.kernels import PRODUCTS, ask_torch
from pipeline.backends import NATIVE
from pipeline.cascade import Bench
from pipeline.engines.base import Spec
from pipeline.engines.build import build_engine
from pipeline.engines.native.clock import PARTS, ClockedEngine
from pipeline.engines.native.library import find_unit
from pipeline.fused import FusedViT
from pipeline.images import resize
from pipeline.params.model import Role
from pipeline.params.runtime import Precision
from pipeline.profile import count_flops, time_batches
from pipeline.runtime import synchronize

# Width of the products that show the peak, by kind of device.
_PRODUCT = {"cpu": 2048, "cuda": 8192}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_WINDOWS = 12
_WARM_UPS = 20
# Low passes between two high ones: about one image of ten is escalated.
_LOWS = 9
_ROUNDS = 60
# Of the batches whose kernels are told apart, on a GPU.
_GPU_BATCH = 256
_KINDS = {
    "FullyConnected": PRODUCTS,
    "Convolution": PRODUCTS,
    "Subgraph": "attention, sums",
    "ScaledDotProductAttention": "attention, sums",
    "Softmax": "attention, sums",
    "MVN": "norms",
}
MOVES = "moves, casts"
CALLS = "calls"
_TURN = 20


def dissect(bench: Bench, canvases: Tensor) -> dict[str, Any]:
    """Of the bench's engine, in its precision; host canvases uint8 (N, 3, S, S).

    Engines of our own and OpenVINO's tell the time of their parts; of the others torch's profiler does.
    """
    backend = bench.runtime.backend
    ask = _ask_openvino if backend == "openvino" else _ask_native if backend in NATIVE else ask_torch
    roles: dict[Role, dict[str, Any]] = {role: ask(bench, role, canvases) for role in ("low", "high")}
    for role, found in roles.items() if bench.runtime.device.type == "cuda" else ():
        found["batch"] = ask_torch(bench, role, canvases, _GPU_BATCH)
    peak = _peak_of_torch(bench)
    for role, found in roles.items():
        size_px = bench.sizes_px[role]
        found["gflop"] = count_flops(FusedViT(bench.weights, size_px, None), size_px) / 1e9
        # A product of the engine itself may be faster than torch's.
        if products_ms := found["parts_ms"][PRODUCTS]:
            peak = max(peak, 1e3 * found["gflop"] / products_ms)
    for found in roles.values():
        found["least_ms"] = 1e3 * found["gflop"] / peak
    specs: dict[Role, Spec] = {role: bench.spec(role) for role in roles}
    for role, by_size in time_batches(specs, bench.batch_size).items():
        roles[role]["batch_ms_per_image"] = {str(size): value for size, value in by_size.items()}
    of_all: dict[str, Any] = {"peak_gflop_per_s": peak, "changing_ms": _time_changes(bench, canvases)}
    return of_all | roles


def _peak_of_torch(bench: Bench) -> float:
    """GFLOP/s, in the numbers that the engine multiplies: sums of two bfloat16 take three products."""
    precision: Precision = bench.runtime.precision
    if bench.runtime.backend == "cudagraph" and precision == "float32":  # It takes what is faster.
        device = bench.runtime.device
        return max(measure_peak("float32", device), measure_peak("bfloat16", device) / 3)
    unit, device = find_unit(bench.runtime.backend, precision), bench.runtime.device
    if unit is not None and unit.layouts[precision].planes == 2:
        return measure_peak("bfloat16", device) / 3
    return measure_peak(precision, device)


def measure_peak(precision: Precision, device: torch.device) -> float:
    """GFLOP/s of torch's product of two large square matrices, in its fastest window."""
    width = _PRODUCT[device.type]
    left, right = (torch.randn(width, width, device=device).to(_DTYPES[precision]) for _ in range(2))

    def multiply() -> None:
        left @ right
        synchronize(device)

    return 2 * width**3 / min(_seconds(multiply) for _ in range(_WINDOWS)) / 1e9


def _ask_native(bench: Bench, role: Role, canvases: Tensor) -> dict[str, Any]:
    """Mean time of a pass, and of its parts by kind, ms: as shares of the same pass with a clock."""
    spec = bench.spec(role)
    plain, clocked = build_engine(spec, 1), ClockedEngine(spec, 1)
    images = canvases.split(1)
    clocked.take_clock()
    plain_s, clocked_s, parts_s = 0.0, 0.0, dict.fromkeys(PARTS, 0.0)
    # In turns of some images: the threads of the one look for work a while after its last.
    for turn in (images[first : first + _TURN] for first in range(0, len(images), _TURN)):
        for image in turn:
            plain.predict(image)
        plain_s += sum(_seconds(partial(plain.predict, image)) for image in turn)
        for image in turn:
            clocked.predict(image)
        clocked.take_clock()
        clocked_s += sum(_seconds(partial(clocked.predict, image)) for image in turn)
        for name, value in clocked.take_clock().items():
            parts_s[name] += value
    parts_s[CALLS] = clocked_s - sum(parts_s.values())
    pass_ms = 1e3 * plain_s / len(images)
    return {
        "pass_ms": pass_ms,
        "clock_over_plain": clocked_s / plain_s,
        "parts_ms": {name: pass_ms * value / clocked_s for name, value in parts_s.items()},
    }


def _ask_openvino(bench: Bench, role: Role, canvases: Tensor) -> dict[str, Any]:
    """Mean time of a pass, and of its parts by kind, ms, by OpenVINO's own clock."""
    from pipeline.engines.openvino import compile_for, convert
    from pipeline.quiet_openvino import ov

    spec = bench.spec(role)
    how = {"PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
    request = compile_for(ov.Core(), convert(spec), spec, 1, how).create_infer_request()
    kinds = dict.fromkeys([*_KINDS.values(), MOVES], 0.0)
    images = resize(canvases, spec.size_px).numpy()
    for image in images[:_WARM_UPS]:
        request.infer([image[None]])
    taken_s = []
    for image in images:
        taken_s.append(_seconds(partial(request.infer, [image[None]])))
        for operation in request.get_profiling_info():
            name = _KINDS.get(operation.node_type, MOVES)
            kinds[name] += 1e3 * operation.real_time.total_seconds() / len(images)
    return {"pass_ms": 1e3 * float(np.mean(taken_s)), "parts_ms": kinds}


def _time_changes(bench: Bench, canvases: Tensor) -> dict[str, float]:
    """Median answers, ms: each role over and over, and right after the other."""
    cascade = bench.build({"low": 1, "high": 1})
    images = canvases.split(1)

    def low(index: int) -> float:
        return 1e3 * _seconds(lambda: cascade.answer("static_low", images[index % len(images)]))

    def high(index: int) -> float:
        return 1e3 * _seconds(lambda: cascade.answer("static_high", images[index % len(images)]))

    taken: dict[str, list[float]] = {}
    for index in range(_ROUNDS):
        taken.setdefault("low after high", []).append(low(index))
        taken.setdefault("low after low", []).append([low(index + k) for k in range(1, _LOWS)][-1])
        taken.setdefault("high after low", []).append(high(index))
        taken.setdefault("high after high", []).append([high(index + k) for k in range(1, 4)][-1])
    return {name: float(np.median(values)) for name, values in taken.items()}


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
