"""Timing that a reviewer can check: settling, percentiles with enough samples, intervals over blocks."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WINDOWS = 3
# Least samples for a percentile, so that it does not rest on the largest value alone (MLPerf's rule of
# thumb at 95 % confidence: the tail must hold at least about three samples).
_LEAST_SAMPLES = {50: 1, 90: 29, 99: 299}


class Estimate(NamedTuple):
    median: float
    ci_low: float
    ci_high: float


def summarise_latency(latency_ms: Floats) -> dict[str, float]:
    """mean, and p50, p90, p99 where (N,) holds samples enough for them; milliseconds."""
    summary = {"mean": float(latency_ms.mean())}
    for percent, least in _LEAST_SAMPLES.items():
        if len(latency_ms) >= least:
            summary[f"p{percent}"] = float(np.percentile(latency_ms, percent))
    return summary


def spread(values: Sequence[float]) -> float:
    """Largest over smallest, less one."""
    return max(values) / min(values) - 1


def settle(measure_window: Callable[[], float], within: float, at_most: int) -> bool:
    """Repeat a window until the last three agree within `within`; False where `at_most` did not do."""
    seen: list[float] = []
    while len(seen) < at_most:
        seen.append(measure_window())
        if len(seen) >= WINDOWS and spread(seen[-WINDOWS:]) <= within:
            return True
    return False


def is_stable(latency_ms: Floats, within: float) -> bool:
    """Do the means of the first, middle and last third of (N,) agree within `within`? False where N < 3.

    Means, as the speed-up is made of them: beside another busy process medians can stay level while a
    tail of waits makes up most of the time.
    """
    if len(latency_ms) < WINDOWS:
        return False
    return spread([float(np.mean(part)) for part in np.array_split(latency_ms, WINDOWS)]) <= within


# With fewer, an interval from resampled blocks holds the truth less often than it says.
FEWEST_BLOCKS = 10
# Likewise of images: resamples of fewer hold too little that differs.
FEWEST_IMAGES = 30
# Of an event, and of its opposite: where the images have fewer, so have most resamples.
FEWEST_EVENTS = 10
# That random escalation does as well: above it nothing is claimed, whatever the resamples say.
MOST_CHANCE = 0.05


def bootstrap_blocks(
    statistic: Callable[[Floats], Floats], blocks: Floats, confidence: float, resamples: int, seed: int
) -> Estimate:
    """Interval of a statistic of block totals, resampling whole blocks so that pairs stay together.

    blocks: (K, ...) totals; statistic: sums (R, ...) to (R,).
    """
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), size=resamples)
    values = statistic(np.tensordot(weights.astype(np.float64), blocks, axes=1))
    tail = (1 - confidence) / 2
    low, middle, high = np.quantile(values, [tail, 0.5, 1 - tail])
    return Estimate(float(middle), float(low), float(high))


def speedup_bound(low_ms: float, high_ms: float, escalation_rate: float) -> float:
    """What a cascade cannot exceed over always-high: 1 / (low/high + escalation rate)."""
    cost = low_ms / high_ms + escalation_rate
    return 1 / cost if cost else math.inf
