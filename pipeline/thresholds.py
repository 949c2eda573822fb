"""Rules that turn calibration scores into a threshold. Each returns it with the warnings it deserves."""

from typing import NamedTuple

import numpy as np

from pipeline.calibration import Calibration, Floats, expected_oracle
from pipeline.params.fit import ThresholdParams
from pipeline.policy import ALWAYS_ESCALATE, NEVER_ESCALATE, escalate


class Threshold(NamedTuple):
    """value: in score units. warnings: sentences for the user, empty where all is well."""

    value: float
    warnings: tuple[str, ...]


def choose_threshold(
    rule: ThresholdParams, scores: Floats, direction: int, calibration: Calibration
) -> Threshold:
    """Apply the rule to the calibration scores (N,); every outcome is valid, odd ones carry a warning."""
    if rule.rule == "escalation_rate":
        value = _at_rate(scores, rule.value)
    elif rule.rule == "max_delta":
        value = _below_oracle(scores, expected_oracle(calibration, scores), rule.value)
    else:
        value = direction * rule.value
    return Threshold(value, tuple(_warnings(rule, scores, value)))


def _at_rate(scores: Floats, rate: float) -> float:
    """Escalate the round(rate * N) largest scores; among ties at the cut, none."""
    ordered = np.sort(scores)
    escalated = round(rate * len(ordered))
    return _between(ordered, len(ordered) - escalated)


def _below_oracle(scores: Floats, expected: Floats, limit: float) -> float:
    """The largest cut below which every calibration image expects at most `limit`, in oracle units."""
    order = np.argsort(scores, kind="stable")
    kept = int(np.searchsorted(np.maximum.accumulate(expected[order]), limit, side="right"))
    return _between(scores[order], kept)


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
