"""What every threshold would cost and answer, from the records of one replay.

Cost is that of the passes, mean low + rate * mean high, times the overhead that the adaptive policy was
measured with: one replay prices all rates.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.cascade import PolicyName
from pipeline.deferral import accuracy_curve, agreement_curve
from pipeline.thresholds import at_rate
from pipeline.timing import Floats

RATES = np.linspace(0, 1, 51)
# Orders in which images could be escalated; a cascade has only the first.
ORDERS = ("proxy", "random", "oracle")

Bools = NDArray[np.bool_]


class Prices(NamedTuple):
    """Measured mean milliseconds by policy, and the share of images that adaptive escalated meanwhile."""

    latency_ms: Mapping[str, float]
    escalated: float

    def at(self, rates: Floats) -> Floats:
        """Milliseconds per image (R,) of a cascade at the escalation rates (R,)."""
        low, high = self.latency_ms["static_low"], self.latency_ms["static_high"]
        overhead = self.latency_ms["adaptive"] / (low + self.escalated * high)
        return np.asarray(overhead * (low + rates * high))


class Outcome(NamedTuple):
    """One replay of N images. agree: low with high, (N,).

    correct: by policy (N,), empty where the model does not know the classes.
    """

    prices: Prices
    agree: Bools
    correct: Mapping[PolicyName, Bools]


class Frontier(NamedTuple):
    """columns: of metrics/plots/frontier.csv, a row for each of RATES. knee: its row's numbers, or None."""

    columns: dict[str, list[float | None]]
    knee: dict[str, float] | None


def draw_frontier(outcome: Outcome, scores: Floats, oracle: Floats) -> Frontier:
    """scores and oracle (N,): larger is escalated first.

    pareto: 1 where neither another threshold nor a static policy is at least as good and cheaper, in
    accuracy or, without labels, in agreement. The knee lies furthest above the line from end to end
    (Satopaa et al. 2011).
    """
    latency_ms = outcome.prices.at(RATES)
    columns: dict[str, Any] = {
        "escalation_rate": RATES,
        "threshold": [_finite(at_rate(scores, rate)) for rate in RATES],
        "latency_ms": latency_ms,
        **_curves("agreement", *_agreement(outcome, scores, oracle)),
    }
    quality = "agreement"
    if outcome.correct:
        columns |= _curves("accuracy", *_accuracy(outcome, scores, oracle))
        quality = "accuracy"
    reached = columns[f"{quality}_proxy"]
    columns["pareto"] = _undominated(latency_ms, reached, _statics(outcome, quality)).astype(int)
    at = _find_knee(latency_ms, reached)
    columns["knee"] = [int(row == at) for row in range(len(RATES))]
    listed = {name: [_number(value) for value in values] for name, values in columns.items()}
    if at is None:
        return Frontier(listed, None)
    shown = {
        "escalation_rate": "escalation_rate",
        "threshold": "threshold",
        "latency_ms": "mean_ms",
        "agreement_proxy": "agreement",
        "accuracy_proxy": "accuracy",
    }
    row = {shown[name]: values[at] for name, values in listed.items() if name in shown}
    return Frontier(listed, {name: value for name, value in row.items() if value is not None})


def _agreement(outcome: Outcome, scores: Floats, oracle: Floats) -> tuple[Floats, Floats, Floats]:
    share = outcome.agree.mean()
    by_order = (agreement_curve(order, outcome.agree, RATES) for order in (scores, oracle))
    proxy, best = by_order
    return proxy, share + RATES * (1 - share), best


def _accuracy(outcome: Outcome, scores: Floats, oracle: Floats) -> tuple[Floats, Floats, Floats]:
    low, high = outcome.correct["static_low"], outcome.correct["static_high"]
    proxy, best = (accuracy_curve(order, low, high, RATES) for order in (scores, oracle))
    return proxy, low.mean() + RATES * (high.mean() - low.mean()), best


def _curves(name: str, *curves: Floats) -> dict[str, Floats]:
    return {f"{name}_{order}": curve for order, curve in zip(ORDERS, curves, strict=True)}


def _statics(outcome: Outcome, quality: str) -> list[tuple[float, float]]:
    """(milliseconds, quality) of the static policies whose quality is known."""
    if quality == "agreement":
        known = {"static_low": float(outcome.agree.mean()), "static_high": 1.0}
    else:
        known = {name: float(right.mean()) for name, right in outcome.correct.items() if name != "adaptive"}
    return [(outcome.prices.latency_ms[name], value) for name, value in known.items()]


def _undominated(latency_ms: Floats, quality: Floats, others: list[tuple[float, float]]) -> Bools:
    points = np.array([*zip(latency_ms, quality, strict=True), *others])
    cheaper = points[:, 0][:, None] <= latency_ms
    better = points[:, 1][:, None] >= quality
    strictly = (points[:, 0][:, None] < latency_ms) | (points[:, 1][:, None] > quality)
    dominated: Bools = np.any(cheaper & better & strictly, axis=0)
    return ~dominated


def _find_knee(latency_ms: Floats, quality: Floats) -> int | None:
    """The row furthest above the straight line between the ends; None where none lies above it."""
    along = (latency_ms - latency_ms[0]) / (latency_ms[-1] - latency_ms[0])
    above = quality - (quality[0] + along * (quality[-1] - quality[0]))
    at = int(np.argmax(above))
    return at if above[at] > 0 else None


def _finite(threshold: float) -> float | None:
    """None for the thresholds that stand for always and never."""
    return threshold if abs(threshold) < np.finfo(np.float64).max else None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
