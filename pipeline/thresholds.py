"""Rules that turn calibration scores into a threshold. Each returns it with the warnings it deserves."""

from typing import NamedTuple

import numpy as np

from pipeline.calibration import Calibration, Floats, expected_oracle, last_below
from pipeline.errors import PipelineError
from pipeline.params.fit import ThresholdParams
from pipeline.policy import ALWAYS_ESCALATE, NEVER_ESCALATE, escalate


class Threshold(NamedTuple):
    """value: in score units. warnings: sentences for the user, empty where all is well."""

    value: float
    warnings: tuple[str, ...]


class Costs(NamedTuple):
    """Measured milliseconds of one image at low and at high."""

    low_ms: float
    high_ms: float


def choose_threshold(
    rule: ThresholdParams,
    scores: Floats,
    direction: int,
    calibration: Calibration,
    costs: Costs | None,
) -> Threshold:
    """Apply the rule to the calibration scores (N,); every outcome is valid, odd ones carry a warning.

    costs: of rule latency_budget. The certified rules are not among these (`certify`, `betting`).
    Raises PipelineError where the budget does not even pay for the low pass.
    """
    if rule.rule == "escalation_rate":
        value = at_rate(scores, rule.value)
    elif rule.rule == "latency_budget":
        value = at_rate(scores, _affordable_rate(rule.value, costs))
    elif rule.rule == "max_delta":
        value = _below_oracle(scores, calibration, rule.value)
    else:
        value = direction * rule.value
    return Threshold(value, tuple(_warnings(rule, scores, value)))


def at_rate(scores: Floats, rate: float) -> float:
    """The threshold that escalates the round(rate * N) largest scores; among ties at the cut, none."""
    ordered = np.sort(scores)
    escalated = round(rate * len(ordered))
    return _between(ordered, len(ordered) - escalated)


def _affordable_rate(budget_ms: float, costs: Costs | None) -> float:
    """The share of escalated images that the budget pays for, by the passes alone."""
    if costs is None:
        raise PipelineError(
            "fit.threshold.rule: latency_budget needs measured costs; run adaptive-vit profile"
        )
    if budget_ms < costs.low_ms:
        raise PipelineError(
            f"fit.threshold.value: a budget of {budget_ms} ms does not pay for the low pass alone, which "
            f"takes {costs.low_ms:.3f} ms; set it between that and {costs.low_ms + costs.high_ms:.3f} ms"
        )
    return min(1.0, (budget_ms - costs.low_ms) / costs.high_ms)


def _below_oracle(scores: Floats, calibration: Calibration, limit: float) -> float:
    """The largest cut below which every calibration image, and every other, expects at most `limit`.

    limit: in oracle units.
    """
    ordered = np.sort(scores)
    kept = int(np.searchsorted(expected_oracle(calibration, ordered), limit, side="right"))
    cut = _between(ordered, kept)
    return cut if kept == 0 else max(float(ordered[kept - 1]), min(cut, last_below(calibration, limit)))


def _between(ordered: Floats, kept: int) -> float:
    """A threshold that keeps the first `kept` scores low.

    Half-way to the next one, so that a rounding error of another machine flips no decision.
    """
    if kept == 0:
        return ALWAYS_ESCALATE
    if kept == len(ordered):
        return NEVER_ESCALATE
    below, above = ordered[kept - 1], ordered[kept]
    middle = below + (above - below) / 2
    return float(middle if middle < above else below)


def _warnings(rule: ThresholdParams, scores: Floats, value: float) -> list[str]:
    rate = float(escalate(scores, value).mean())
    found = []
    if rate == 0:
        found.append("no calibration image is escalated: adaptive inference equals static low")
    if rate == 1:
        found.append(
            "every calibration image is escalated: adaptive inference equals static high, plus the low pass"
        )
    if rule.rule == "escalation_rate" and abs(rate - rule.value) > 0.5 / len(scores) + 1e-12:
        found.append(
            f"ties in the proxy: the threshold escalates {rate:.4f} of the calibration images, "
            f"not the {rule.value} asked for"
        )
    return found
