"""How good an order of escalation is: the curve against random and oracle, and its bootstrap interval.

The curve's y is the captured share: the oracle's sum over the escalated images over its sum over all.
Random escalation captures the share it escalates, so its area is one half. No order among tied scores is
better than another: every statistic is the mean over all of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from pipeline.calibration import Floats

Bools = NDArray[np.bool_]
# How often images stand in resamples: a few times, however many there are.
Counts = NDArray[np.uint16]

_RESAMPLES_AT_ONCE = 100
# Of weights at a time, which take 8 bytes each, several times over.
_MOST_AT_ONCE = 1 << 22


class Interval(NamedTuple):
    value: float
    ci_low: float
    ci_high: float


def escalated_first(scores: Floats) -> NDArray[np.intp]:
    """Indices by falling score, NaN first; ties by position."""
    return np.argsort(_ranked(scores), kind="stable")


def capture(scores: Floats, gains: NDArray[Any]) -> Floats:
    """(N + 1,): the sum of gains (N,) over the n largest scores, n from 0; in a tie, each its mean."""
    order = escalated_first(scores)
    ends = np.concatenate([[0], _tie_ends(scores, order)])
    sums = np.concatenate([[0], np.cumsum(gains[order])])
    return np.asarray(np.interp(np.arange(len(sums)), ends, sums[ends]))


def agreement_curve(scores: Floats, agree: Bools, rates: Floats) -> Floats:
    """Agreement with always-high when the share `rates` (R,) with the largest scores is escalated."""
    return accuracy_curve(scores, agree, np.ones_like(agree), rates)


def accuracy_curve(scores: Floats, low: Bools, high: Bools, rates: Floats) -> Floats:
    """Accuracy (R,) when the share `rates` (R,) with the largest scores takes high's answer."""
    gained = capture(scores, high.astype(int) - low)
    return np.asarray((low.sum() + gained[np.round(rates * len(low)).astype(int)]) / len(low))


def gain_over_random(scores: Floats, oracle: Floats, weights: Counts, confidence: float) -> Interval | None:
    """Area between the score's curve and random, over that between oracle and random, with its interval.

    0: no better than random; 1: as good as the oracle; negative: worse than random. None where the
    oracle is constant, so that no order is better than another. weights: as `draw_weights` draws them.
    """
    if np.ptp(oracle) == 0:
        return None
    return percentile_interval(resample(partial(area_gain, scores, oracle), weights), confidence)


def agreement_over_random(escalated: Bools, agree: Bools, weights: Counts, confidence: float) -> Interval:
    """Agreement less what random escalation at the same rate would reach, with its interval."""
    return percentile_interval(resample(partial(_agreement_gain, escalated, agree), weights), confidence)


def chance_of_agreement(escalated: Bools, agree: Bools) -> float:
    """That random escalation of as many images mends as many disagreements, or more: Fisher's exact test.

    Where nearly all are escalated, resamples know of no image that is not.
    """
    disagreements, mended = int((~agree).sum()), int((escalated & ~agree).sum())
    return float(hypergeom.sf(mended - 1, len(agree), disagreements, int(escalated.sum())))


def chance_of_no_more(escalated: Bools, agree: Bools) -> float:
    """That random escalation of as many images mends as few disagreements, or fewer."""
    disagreements, mended = int((~agree).sum()), int((escalated & ~agree).sum())
    return float(hypergeom.cdf(mended, len(agree), disagreements, int(escalated.sum())))


def draw_weights(count: int, resamples: int, seed: int) -> Counts:
    """(resamples, count): how often each of `count` images stands in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, count), dtype=np.uint16)
    for row in weights:
        row[:] = np.bincount(rng.integers(0, count, size=count, dtype=np.int32), minlength=count)
    return weights


def resample(statistic: Callable[[Floats], Floats], weights: Counts) -> Floats:
    """(R + 1,): the statistic of the images as they are, then of every resample.

    `statistic` takes weights (r, N) and returns (r,).
    """
    at_once = max(1, min(_RESAMPLES_AT_ONCE, _MOST_AT_ONCE // weights.shape[1]))
    parts = np.array_split(weights, -(-len(weights) // at_once))
    whole = np.ones((1, weights.shape[1]), dtype=np.uint16)
    return np.concatenate([statistic(part.astype(np.float64)) for part in (whole, *parts)])


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
    ordered, values = np.take(weights, order, axis=1), oracle[order]
    before = _weight_before(ordered, _tie_ends(scores, order))
    before *= ordered
    return 0.5 - ratio(before @ values, ordered.sum(axis=1) * (ordered @ values))


def ratio(of: Floats, over: Floats) -> Floats:
    """NaN where it is 0 over 0, as on a resample without a single event."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(of / over)


def _weight_before(ordered: Floats, ends: NDArray[np.intp]) -> Floats:
    """(R, N): the weight escalated when half of an image's ties are, itself among them.

    Of weights, not of images, so that a resample averages over its own ties.
    """
    reached = np.take(np.cumsum(ordered, axis=1), ends - 1, axis=1)
    reached /= 2
    halfway = reached.copy()
    halfway[:, 1:] += reached[:, :-1]
    return np.repeat(halfway, np.diff(ends, prepend=0), axis=1)


def _tie_ends(scores: Floats, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """(G,): in the order of escalation, the position behind the last image of each score."""
    ordered = _ranked(scores)[order]
    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(ordered))


def _ranked(scores: Floats) -> Floats:
    """What is escalated first is smallest, and NaN ties with NaN."""
    return np.where(np.isnan(scores), -np.inf, -scores)
