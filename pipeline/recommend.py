"""Which threshold to take for a limit on accuracy or on latency.

Chosen on the calibration images alone; what is said of it comes from the evaluation images, which chose
nothing.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.certify import risk_bound
from pipeline.deferral import Interval, draw_weights, percentile_interval, resample
from pipeline.frontier import Prices
from pipeline.judge import harmed_if_low, has_labels, losses_if_low
from pipeline.policy import escalate
from pipeline.thresholds import at_rate
from pipeline.timing import Floats

_RATES = np.linspace(0, 1, 201)

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """drop: of quality against always-high, as a share. latency_ms: mean per image. None: no limit."""

    drop: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Recommendation:
    """threshold: in score units. quality: accuracy or, without labels, agreement with always-high.

    calibration_drop and drop: quality lost against always-high, on the images that chose and on the others.
    risk_bound: exact upper bound of P(stays low and is harmed) at the confidence asked for.
    """

    threshold: float
    quality: str
    escalation_rate: float
    calibration_drop: float
    drop: Interval
    reached: float
    latency_ms: float
    speedup: float
    harmful: int
    images: int
    risk_bound: float


def recommend(
    samples: pl.DataFrame,
    scores: Floats,
    prices: Prices,
    limits: Limits,
    confidence: float,
    resamples: int,
    seed: int,
) -> Recommendation | None:
    """The cheapest threshold within the limits; of those that cost the same, the one that loses least.

    samples: table of deltas; scores (N,) in its order. With a limit on latency alone,
    the one that loses least. None where no threshold is within the limits on the calibration images.
    """
    learns = (samples["split"] == "calibration").to_numpy()
    losses = losses_if_low(samples)
    found = _choose(scores[learns], losses[learns], prices, limits)
    if found is None:
        return None
    threshold, calibration_drop = found
    judged = samples.filter(~pl.Series(learns))
    escalated = escalate(scores[~learns], threshold)
    rate = float(escalated.mean())
    latency_ms = float(prices.at(np.array([rate]))[0])
    harmful = int((harmed_if_low(judged) & ~escalated).sum())
    high = judged["high_correct"].to_numpy().mean() if has_labels(samples) else 1.0
    drop = _interval(losses[~learns] * ~escalated, confidence, resamples, seed)
    return Recommendation(
        threshold=threshold,
        quality="accuracy" if has_labels(samples) else "agreement",
        escalation_rate=rate,
        calibration_drop=calibration_drop,
        drop=drop,
        reached=float(high - drop.value),
        latency_ms=latency_ms,
        speedup=prices.latency_ms["static_high"] / latency_ms,
        harmful=harmful,
        images=len(judged),
        risk_bound=risk_bound(harmful, len(judged), confidence),
    )


def _choose(scores: Floats, losses: Floats, prices: Prices, limits: Limits) -> tuple[float, float] | None:
    """(threshold, drop on these images)."""
    thresholds = [at_rate(scores, rate) for rate in _RATES]
    kept = [~escalate(scores, threshold) for threshold in thresholds]
    drops = np.array([float((losses * low).mean()) for low in kept])
    costs_ms = prices.at(np.array([1 - low.mean() for low in kept]))
    allowed = np.ones(len(thresholds), dtype=bool)
    if limits.drop is not None:
        allowed &= drops <= limits.drop
    if limits.latency_ms is not None:
        allowed &= costs_ms <= limits.latency_ms
    if not allowed.any():
        return None
    order = (drops, costs_ms) if limits.drop is not None else (costs_ms, drops)
    best = next(int(row) for row in np.lexsort(order) if allowed[row])
    return thresholds[best], float(drops[best])


def _interval(losses: Floats, confidence: float, resamples: int, seed: int) -> Interval:
    """Of the mean, by a percentile bootstrap over images."""
    weights = draw_weights(len(losses), resamples, seed)
    return percentile_interval(resample(lambda part: part @ losses / len(losses), weights), confidence)
