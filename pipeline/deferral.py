"""How good an order of escalation is: the curve against random and oracle, and its bootstrap interval.

The curve's y is the captured share: the oracle's sum over the escalated images over its sum over all.
Random escalation captures the share it escalates, so its area is one half.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration import Floats

Bools = NDArray[np.bool_]

_RESAMPLES_AT_ONCE = 100


class Interval(NamedTuple):
    value: float
    ci_low: float
    ci_high: float


def escalated_first(scores: Floats) -> NDArray[np.intp]:
    """Indices by falling score, NaN first; ties by position."""
    return np.argsort(np.where(np.isnan(scores), -np.inf, -scores), kind="stable")


def agreement_curve(scores: Floats, agree: Bools, rates: Floats) -> Floats:
    """Agreement with always-high when the share `rates` (R,) with the largest scores is escalated."""
    agreeing = np.cumsum(np.concatenate([[0], agree[escalated_first(scores)]]))
    counts = np.round(rates * len(agree)).astype(int)
    return np.asarray((counts + agreeing[-1] - agreeing[counts]) / len(agree))


def accuracy_curve(scores: Floats, low: Bools, high: Bools, rates: Floats) -> Floats:
    """Accuracy (R,) when the share `rates` (R,) with the largest scores takes high's answer."""
    gained = np.cumsum(np.concatenate([[0], (high.astype(int) - low)[escalated_first(scores)]]))
    return np.asarray((low.sum() + gained[np.round(rates * len(low)).astype(int)]) / len(low))


def gain_over_random(scores: Floats, oracle: Floats, weights: Floats, confidence: float) -> Interval | None:
    """Area between the score's curve and random, over that between oracle and random, with its interval.

    0: no better than random; 1: as good as the oracle; negative: worse than random. None where the
    oracle is constant, so that no order is better than another. weights: as `draw_weights` draws them.
    """
    if np.ptp(oracle) == 0:
        return None
    return percentile_interval(resample(partial(area_gain, scores, oracle), weights), confidence)


def agreement_over_random(escalated: Bools, agree: Bools, weights: Floats, confidence: float) -> Interval:
    """Agreement less what random escalation at the same rate would reach, with its interval."""
    return percentile_interval(resample(partial(_agreement_gain, escalated, agree), weights), confidence)


def draw_weights(count: int, resamples: int, seed: int) -> Floats:
    """(resamples, count): how often each of `count` images stands in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, count, size=(resamples, count), dtype=np.int32)
    return np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)


def resample(statistic: Callable[[Floats], Floats], weights: Floats) -> Floats:
    """(R + 1,): the statistic of the images as they are, then of every resample.

    `statistic` takes weights (r, N) and returns (r,).
    """
    parts = np.array_split(weights, -(-len(weights) // _RESAMPLES_AT_ONCE))
    whole = np.ones((1, weights.shape[1]))
    return np.concatenate([statistic(part) for part in (whole, *parts)])


def percentile_interval(values: Floats, confidence: float) -> Interval:
    """Of what `resample` returns."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values[1:], [tail, 1 - tail])
    return Interval(float(values[0]), float(low), float(high))


def _agreement_gain(escalated: Bools, agree: Bools, weights: Floats) -> Floats:
    """Disagreements that escalation mends, less its share of all disagreements."""
    mended = weights @ (escalated & ~agree)
    return np.asarray((mended - weights @ escalated * (weights @ ~agree) / len(agree)) / len(agree))


def area_gain(scores: Floats, oracle: Floats, weights: Floats) -> Floats:
    """The gain of `gain_over_random` where weights (R, N) say how often each image counts; returns (R,)."""
    return ratio(area_over_random(scores, oracle, weights), area_over_random(oracle, oracle, weights))


def area_over_random(scores: Floats, oracle: Floats, weights: Floats) -> Floats:
    """(R,): the area under the score's curve less one half; weights (R, N): how often an image counts."""
    order = escalated_first(scores)
    means = _tied_means(scores, oracle)[order]
    ordered = np.take(weights, order, axis=1)
    before = np.cumsum(ordered, axis=1)
    total = before[:, -1].copy()
    before -= ordered / 2
    before *= ordered
    return 0.5 - ratio(before @ means, total * (ordered @ means))


def ratio(of: Floats, over: Floats) -> Floats:
    """NaN where it is 0 over 0, as on a resample without a single event."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(of / over)


def _tied_means(scores: Floats, oracle: Floats) -> Floats:
    """The oracle averaged over images of one score: no order among ties is better than another."""
    _, group = np.unique(scores, return_inverse=True)
    return np.asarray((np.bincount(group, oracle) / np.bincount(group))[group])
