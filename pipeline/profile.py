"""The forward pass alone, without data: latency, floating-point operations, parameters, memory."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.engine import EagerEngine
from pipeline.memory import peak_memory_mb
from pipeline.params.model import Role
from pipeline.runtime import Runtime, synchronize
from pipeline.timing import settle, summarise_latency
from pipeline.vit import PATCH_PX, TracedViT, Weights

_WARMUP_RUNS = 5
_WARMUP_WINDOWS = 20


def profile_roles(
    weights: Weights, sizes_px: Mapping[Role, int], runtime: Runtime, runs: int, within: float
) -> dict[str, Any]:
    """Cost of one image per role, batch of one; the roles take turns, so that both see the same machine.

    gflops counts one multiply-add as two operations, in 1e9; memory in MB of 1e6 bytes.
    """
    memory = {role: _memory_mb(weights, size_px, runtime) for role, size_px in sizes_px.items()}
    engines = {role: EagerEngine(weights, size_px, runtime) for role, size_px in sizes_px.items()}
    latency_ms = _time_in_turns(engines, runs, within)
    costs: dict[str, Any] = {
        role: {
            "size_px": size_px,
            "tokens": (size_px // PATCH_PX) ** 2 + 1,
            "latency_ms": summarise_latency(latency_ms[role]),
            "gflops": count_flops(engines[role].model, size_px) / 1e9,
            "parameters": sum(value.numel() for value in engines[role].model.parameters()),
            "peak_memory_mb": memory[role],
        }
        for role, size_px in sizes_px.items()
    }
    ratio = np.median(latency_ms["high"]) / np.median(latency_ms["low"])
    return costs | {
        "latency_ratio": float(ratio),
        "flops_ratio": costs["high"]["gflops"] / costs["low"]["gflops"],
    }


def count_flops(model: TracedViT, size_px: int) -> int:
    """Floating-point operations of one image, matrix products and convolutions, as torch counts them."""
    image = _image(size_px).to(next(model.parameters()).device)
    # The counter does not know the CPU's fused attention; the plain one is made of products it counts.
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.inference_mode(), plain, FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())


def _time_in_turns(engines: Mapping[Role, EagerEngine], runs: int, within: float) -> dict[Role, Any]:
    inputs = {role: engine.upload(_image(engine.size_px)) for role, engine in engines.items()}
    for role, engine in engines.items():
        settle(lambda e=engine, i=inputs[role]: _window_ms(e, i), within, _WARMUP_WINDOWS)  # type: ignore[misc]
    taken: dict[Role, list[float]] = {role: [] for role in engines}
    for _ in range(runs):
        for role, engine in engines.items():
            taken[role].append(_run_ms(engine, inputs[role]))
    return {role: np.array(values) for role, values in taken.items()}


def _window_ms(engine: EagerEngine, image: Tensor) -> float:
    return sum(_run_ms(engine, image) for _ in range(_WARMUP_RUNS))


def _run_ms(engine: EagerEngine, image: Tensor) -> float:
    started_ns = time.perf_counter_ns()
    engine.run(image)
    synchronize(engine.runtime.device)
    return (time.perf_counter_ns() - started_ns) / 1e6


def _memory_mb(weights: Weights, size_px: int, runtime: Runtime) -> float | None:
    def work() -> None:
        engine = EagerEngine(weights, size_px, runtime)
        engine.run(engine.upload(_image(size_px)))

    return peak_memory_mb(work, runtime.device)


def _image(size_px: int) -> Tensor:
    return torch.zeros(1, 3, size_px, size_px, dtype=torch.uint8)
