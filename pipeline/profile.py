"""The forward pass alone, without data: latency, floating-point operations, parameters, memory."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.engines.base import Engine, Spec, halvings
from pipeline.engines.build import build_engine, build_engines
from pipeline.memory import peak_memory_mb
from pipeline.params.model import Role
from pipeline.runtime import Runtime, prepare_process, synchronize
from pipeline.timing import Floats, is_stable, settle, summarise_latency
from pipeline.vit import TracedViT, Weights

_WARMUP_RUNS = 5
_BLOCK_RUNS = 10
_WARMUP_WINDOWS = 20
_BATCH_ROUNDS = 5


def profile_roles(
    weights: Weights,
    sizes_px: Mapping[Role, int],
    runtime: Runtime,
    batch_size: int,
    runs: int,
    within: float,
) -> dict[str, Any]:
    """Cost of one image per role, batch of one, and ms per image in batches of up to `batch_size`.

    The roles take turns, so that all see the same machine. gflops counts one multiply-add as two
    operations, in 1e9, of the model as published; memory in MB of 1e6 bytes. stable: 1 where the warm-up
    settled, and the first, the middle and the last third of the images agree `within` on their mean. The
    low pass of a cascade computes a proxy besides.
    """
    specs = {
        role: Spec(weights, sizes_px["high"], size_px, runtime.of(role)) for role, size_px in sizes_px.items()
    }
    timed = time_single(specs, runs, within)
    batches_ms = time_batches(specs, batch_size)
    costs: dict[str, Any] = {
        role: _count(spec)
        | {
            "latency_ms": summarise_latency(timed[role].latency_ms),
            "stable": int(timed[role].settled and is_stable(timed[role].latency_ms, within)),
            "batch_ms_per_image": {str(size): value for size, value in batches_ms[role].items()},
            "peak_memory_mb": peak_memory_mb(partial(_run_once, spec), runtime.device),
        }
        for role, spec in specs.items()
    }
    ratio = np.median(timed["high"].latency_ms) / np.median(timed["low"].latency_ms)
    return costs | {
        "latency_ratio": float(ratio),
        "flops_ratio": costs["high"]["gflops"] / costs["low"]["gflops"],
    }


def _count(spec: Spec) -> dict[str, Any]:
    model = TracedViT(spec.weights, spec.size_px)
    return {
        "size_px": spec.size_px,
        "tokens": spec.weights.architecture.count_tokens(spec.size_px),
        "gflops": count_flops(model, spec.size_px) / 1e9,
        "parameters": sum(value.numel() for value in model.parameters()),
    }


def count_flops(model: nn.Module, size_px: int) -> int:
    """Floating-point operations of one image, matrix products and convolutions, as torch counts them."""
    # The counter does not know the CPU's fused attention; the plain one is made of products it counts.
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.inference_mode(), plain, FlopCounterMode(display=False) as counter:
        model(_images(1, size_px))
    return int(counter.get_total_flops())


class Timed(NamedTuple):
    """latency_ms: of single images. settled: whether the warm-up before them did."""

    latency_ms: Floats
    settled: bool


def time_single(specs: Mapping[Role, Spec], runs: int, within: float) -> dict[Role, Timed]:
    """Of `runs` single images per role, rounded up to tens, resize included."""
    engines = build_engines(specs, dict.fromkeys(specs, 1))
    image = {role: engine.upload(_images(1, specs[role].canvas_px)) for role, engine in engines.items()}
    settled = {
        role: settle(partial(_window_ms, engine, image[role]), within, _WARMUP_WINDOWS)
        for role, engine in engines.items()
    }
    taken: dict[Role, list[float]] = {role: [] for role in engines}
    # In blocks, as a stream runs: right after another role's pass the caches hold that one's weights.
    for _ in range(-(-runs // _BLOCK_RUNS)):
        for role, engine in engines.items():
            taken[role] += [_run_ms(engine, image[role]) for _ in range(_BLOCK_RUNS)]
    return {role: Timed(np.array(values), settled[role]) for role, values in taken.items()}


def time_batches(specs: Mapping[Role, Spec], batch_size: int) -> dict[Role, dict[int, float]]:
    """Milliseconds per image, the median of a few passes; of `batch_size` and its halvings, 1 if alone."""
    engines = {role: build_engine(spec, batch_size) for role, spec in specs.items()}
    sizes = [size for size in halvings(batch_size) if size > 1] or [1]
    taken: dict[Role, dict[int, list[float]]] = {role: {size: [] for size in sizes} for role in engines}
    # Made beforehand: torch fills them with threads that then look for more on the engine's cores.
    images = {
        role: engine.upload(_images(batch_size, specs[role].canvas_px)) for role, engine in engines.items()
    }
    for _ in range(_BATCH_ROUNDS + 1):
        for role, engine in engines.items():
            for size in sizes:
                taken[role][size].append(_run_ms(engine, images[role][:size]) / size)
    # The first round warms up.
    return {
        role: {size: float(np.median(values[1:])) for size, values in by_size.items()}
        for role, by_size in taken.items()
    }


def _window_ms(engine: Engine, image: Tensor) -> float:
    return sum(_run_ms(engine, image) for _ in range(_WARMUP_RUNS))


def _run_ms(engine: Engine, images: Tensor) -> float:
    started_ns = time.perf_counter_ns()
    engine.run(images)
    synchronize(engine.runtime.device)
    return (time.perf_counter_ns() - started_ns) / 1e6


def _run_once(spec: Spec) -> None:
    prepare_process(spec.runtime)
    engine = build_engine(spec, 1)
    engine.run(engine.upload(_images(1, spec.canvas_px)))


def _images(count: int, size_px: int) -> Tensor:
    return torch.zeros(count, 3, size_px, size_px, dtype=torch.uint8)
