"""What other ways of choosing the same number of images would have answered.

They cost what the adaptive policy costs, so only their answers are compared.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.answers import Answers
from pipeline.calibration import Floats
from pipeline.deferral import accuracy_curve

Booleans = NDArray[np.bool_]


def summarise_rivals(
    low: Answers,
    high: Answers,
    escalated: int,
    oracle: Floats,
    truth: NDArray[np.int64] | None,
) -> dict[str, dict[str, float]]:
    """escalation_rate, agreement and (where truth (N,) is known) accuracy of `random` and `oracle`.

    random: the mean over all ways of drawing `escalated` images. oracle: those whose `oracle` (N,), of
    which larger means that high matters more, is largest; among equals the mean over all orders.
    """
    goals = {"agreement": (low.top1 == high.top1, np.ones(len(oracle), dtype=bool))}
    if truth is not None:
        goals["accuracy"] = (low.top1 == truth, high.top1 == truth)
    rate = escalated / len(oracle)
    return {
        "random": {"escalation_rate": rate} | {name: _mixed(*goal, rate) for name, goal in goals.items()},
        "oracle": {"escalation_rate": rate}
        | {name: _chosen(oracle, *goal, rate) for name, goal in goals.items()},
    }


def _mixed(low: Booleans, high: Booleans, rate: float) -> float:
    return float((1 - rate) * low.mean() + rate * high.mean())


def _chosen(oracle: Floats, low: Booleans, high: Booleans, rate: float) -> float:
    return float(accuracy_curve(oracle, low, high, np.array([rate]))[0])
