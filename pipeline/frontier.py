"""What every threshold would cost and answer, from the records of one replay.

Cost is that of the passes, mean low + rate * mean high, times the overhead that the adaptive policy was
measured with: one replay prices all rates.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.answers import PolicyName
from pipeline.deferral import accuracy_curve
from pipeline.policy import escalate, is_number
from pipeline.thresholds import at_rate
from pipeline.timing import Floats

# What is asked for; ties may leave some of these out of reach.
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
    """One replay of N images. agree: by policy (N,), with static high.

    correct: by policy (N,), empty where the model does not know the classes.
    """

    prices: Prices
    agree: Mapping[PolicyName, Bools]
    correct: Mapping[PolicyName, Bools]


class Frontier(NamedTuple):
    """columns: of metrics/plots/frontier.csv, a row for each rate in reach. knee: its numbers, or None."""

    columns: dict[str, list[float | None]]
    knee: dict[str, float] | None


def draw_frontier(outcome: Outcome, scores: Floats, oracle: Floats) -> Frontier:
    """scores and oracle (N,): larger is escalated first.

    pareto: 1 where neither another threshold nor a static policy is at least as good and cheaper, in
    accuracy or, without labels, in agreement. The knee lies furthest above the line from end to end
    (Satopaa et al. 2011).
    """
    rates, thresholds = _reach(scores)
    latency_ms = outcome.prices.at(rates)
    curves = _draw_curves("agreement", outcome.agree, (scores, oracle), rates)
    if outcome.correct:
        curves |= _draw_curves("accuracy", outcome.correct, (scores, oracle), rates)
    reached = curves["accuracy_proxy" if outcome.correct else "agreement_proxy"]
    at = _find_knee(latency_ms, reached)
    columns: dict[str, Any] = {
        "escalation_rate": rates,
        "threshold": [threshold if is_number(threshold) else None for threshold in thresholds],
        "latency_ms": latency_ms,
        **curves,
        "pareto": _undominated(latency_ms, reached, _statics(outcome)).astype(int),
        "knee": [int(row == at) for row in range(len(rates))],
    }
    listed = {name: [_number(value) for value in values] for name, values in columns.items()}
    return Frontier(listed, None if at is None else _describe(listed, at))


def _reach(scores: Floats) -> tuple[Floats, Floats]:
    """Rates (R,), rising, and the thresholds (R,) that escalate them; fewer than RATES where scores tie.

    A tie is escalated whole or not at all, so a rate that would cut it is replaced by what its threshold
    escalates; one that is off by no more than half an image stands.
    """
    thresholds = np.array([at_rate(scores, rate) for rate in RATES])
    escalated = np.array([escalate(scores, threshold).mean() for threshold in thresholds])
    tied = np.abs(escalated - RATES) > 0.5 / len(scores) + 1e-12
    rates = np.where(tied, escalated, RATES)
    _, rows = np.unique(rates.round(9), return_index=True)
    return rates[rows], thresholds[rows]


def _draw_curves(
    name: str, right: Mapping[PolicyName, Bools], orders: tuple[Floats, Floats], rates: Floats
) -> dict[str, Floats]:
    """By column, the share of `right` answers at the rates (R,); orders: scores and oracle."""
    low, high = right["static_low"], right["static_high"]
    proxy, oracle = (accuracy_curve(order, low, high, rates) for order in orders)
    random = low.mean() + rates * (high.mean() - low.mean())
    return {f"{name}_{order}": curve for order, curve in zip(ORDERS, (proxy, random, oracle), strict=True)}


def _describe(listed: Mapping[str, list[float | None]], at: int) -> dict[str, float]:
    """One row, by the names that metrics have."""
    shown = {
        "escalation_rate": "escalation_rate",
        "threshold": "threshold",
        "latency_ms": "mean_ms",
        "agreement_proxy": "agreement",
        "accuracy_proxy": "accuracy",
    }
    row = {shown[name]: values[at] for name, values in listed.items() if name in shown}
    return {name: value for name, value in row.items() if value is not None}


def _statics(outcome: Outcome) -> list[tuple[float, float]]:
    """(milliseconds, accuracy or, without labels, agreement) of the static policies."""
    right = outcome.correct or outcome.agree
    return [
        (outcome.prices.latency_ms[name], float(right[name].mean())) for name in right if name != "adaptive"
    ]


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


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
