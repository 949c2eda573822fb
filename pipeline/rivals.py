"""What other ways of choosing the same number of images would have answered.

They cost what the adaptive policy costs, so only their answers are compared.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.answers import Answers

Booleans = NDArray[np.bool_]


def summarise_rivals(
    low: Answers,
    high: Answers,
    escalated: int,
    oracle: NDArray[np.float64],
    truth: NDArray[np.int64] | None,
) -> dict[str, dict[str, float]]:
    """escalation_rate, agreement and (where truth (N,) is known) accuracy of `random` and `oracle`.

    random: the mean over all ways of drawing `escalated` images. oracle: those whose `oracle` (N,), of
    which larger means that high matters more, is largest; among equals the first.
    """
    goals = {"agreement": (low.top1 == high.top1, np.ones(len(oracle), dtype=bool))}
    if truth is not None:
        goals["accuracy"] = (low.top1 == truth, high.top1 == truth)
    rate = escalated / len(oracle)
    chosen = np.zeros(len(oracle), dtype=bool)
    chosen[np.argsort(-oracle, kind="stable")[:escalated]] = True
    return {
        "random": {"escalation_rate": rate} | {name: _mixed(*goal, rate) for name, goal in goals.items()},
        "oracle": {"escalation_rate": rate} | {name: _chosen(*goal, chosen) for name, goal in goals.items()},
    }


def _mixed(low: Booleans, high: Booleans, rate: float) -> float:
    return float((1 - rate) * low.mean() + rate * high.mean())


def _chosen(low: Booleans, high: Booleans, chosen: Booleans) -> float:
    return float(np.where(chosen, high, low).mean())
