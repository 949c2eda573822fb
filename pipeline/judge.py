"""How a policy does on images that it has not seen, and the tables that show it."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from pipeline.calibration import Calibration, Floats, expected_oracle
from pipeline.deferral import (
    agreement_curve,
    agreement_over_random,
    chance_of_agreement,
    chance_of_no_more,
    draw_weights,
    gain_over_random,
)
from pipeline.oracles import ORACLES, has_labels
from pipeline.paired import interval_of_difference
from pipeline.params.fit import FitParams
from pipeline.policy import Policy, decide, score
from pipeline.regression import rank_correlation
from pipeline.timing import FEWEST_EVENTS, FEWEST_IMAGES

_CURVE_RATES = np.linspace(0, 1, 101)


def harmed_if_low(samples: pl.DataFrame) -> NDArray[np.bool_]:
    """(N,) True where high is right and low is wrong; without labels, where the two disagree."""
    return np.asarray(ORACLES["benefit" if has_labels(samples) else "disagreement"](samples) > 0)


def losses_if_low(samples: pl.DataFrame) -> Floats:
    """(N,) What staying low loses against high: 1 a right answer, -1 a wrong one, 0 nothing.

    Without labels, 1 where the two disagree.
    """
    if not has_labels(samples):
        return np.asarray(~samples["agree"].to_numpy(), dtype=np.float64)
    return column(samples, "high_correct") - column(samples, "low_correct")


def judge(
    samples: pl.DataFrame, policy: Policy, calibration: Calibration, params: FitParams
) -> dict[str, Any]:
    """How the policy does on images that it has not seen, beside random and oracle at the same rate."""
    proxy, oracle = column(samples, "proxy"), column(samples, "oracle")
    agree = samples["agree"].to_numpy()
    scores, escalated = score(proxy, policy.direction), decide(policy, proxy)
    rate = float(escalated.mean())
    weights = draw_weights(len(samples), params.bootstrap, params.seed)
    confidence = params.threshold.confidence
    gain = gain_over_random(scores, oracle, weights, confidence)
    error = np.abs(expected_oracle(calibration, scores) - oracle).mean()
    evaluation = {
        "images": len(samples),
        "escalation_rate": rate,
        "agreement": float((agree | escalated).mean()),
        "random_agreement": float(agree.mean() + rate * (1 - agree.mean())),
        "oracle_agreement": float(agreement_curve(oracle, agree, np.array([rate]))[0]),
        "spearman": rank_correlation(scores, oracle),
        # Of an event, which delta is none.
        "auroc": _auroc(oracle if params.oracle == "benefit" else ~agree, scores),
        "calibration_error": float(error),
        "agreement_over_random": {
            **agreement_over_random(escalated, agree, weights, confidence)._asdict(),
            "chance": chance_of_agreement(escalated, agree),
            "chance_of_no_more": chance_of_no_more(escalated, agree),
        },
        "gain_over_random": gain._asdict() if gain else None,
        "certified_risk": _recheck(samples, escalated, params) if policy.certificate else None,
        **_with_labels(samples, escalated),
    }
    told = why_untold(oracle) is None
    beats = told and gain is not None and gain.ci_low > 0
    return {"evaluation": evaluation, "told": int(told), "beats_random": int(beats)}


def why_untold(oracle: Floats) -> str | None:
    """Why nothing is claimed of how well its order is found, for oracle values (N,); None where it is."""
    if len(oracle) < FEWEST_IMAGES:
        return f"{len(oracle)} evaluation images are too few for intervals (expected {FEWEST_IMAGES} or more)"
    values, times = np.unique(oracle, return_counts=True)
    if len(values) != 2 or times.min() >= FEWEST_EVENTS:
        return None
    found = f"{times[1]} events among {len(oracle)} evaluation images are too few for intervals"
    if times[0] < times[1]:
        found = f"{times[0]} evaluation images of {len(oracle)} that are no event are too few for intervals"
    return f"{found} (expected {FEWEST_EVENTS} or more)"


def _recheck(samples: pl.DataFrame, escalated: NDArray[np.bool_], params: FitParams) -> dict[str, float]:
    """What was certified, on images that neither learned nor certified, with its interval."""
    rule, images = params.threshold, len(samples)
    if rule.rule == "accuracy_drop":
        lost = losses_if_low(samples) * ~escalated
        return interval_of_difference(lost, rule.confidence)._asdict()
    harmful = int((harmed_if_low(samples) & ~escalated).sum())
    interval = binomtest(harmful, images).proportion_ci(rule.confidence, method="exact")
    return {"value": harmful / images, "ci_low": float(interval.low), "ci_high": float(interval.high)}


def _with_labels(samples: pl.DataFrame, escalated: Any) -> dict[str, float]:
    """Accuracy and harm, where the model knows the classes."""
    if not has_labels(samples):
        return {}
    low, high = samples["low_correct"].to_numpy(), samples["high_correct"].to_numpy()
    return {
        "accuracy": float(np.where(escalated, high, low).mean()),
        "harm_rate": float((~escalated & high & ~low).mean()),
    }


def _auroc(event: Any, scores: Floats) -> float | None:
    event = np.asarray(event, dtype=bool)
    return float(roc_auc_score(event, scores)) if 0 < event.sum() < len(event) else None


def plot_tables(samples: pl.DataFrame, policy: Policy, calibration: Calibration) -> dict[str, pl.DataFrame]:
    proxy, oracle = column(samples, "proxy"), column(samples, "oracle")
    agree = samples["agree"].to_numpy()
    scores = score(proxy, policy.direction)
    points = pl.DataFrame(
        {
            "image_id": samples["image_id"],
            "proxy": proxy,
            "delta": samples["delta"],
            "expected": expected_oracle(calibration, scores),
            "escalated": decide(policy, proxy).astype(int),
        }
    )
    curves = pl.DataFrame(
        {
            "escalation_rate": _CURVE_RATES,
            "proxy": agreement_curve(scores, agree, _CURVE_RATES),
            "random": agree.mean() + _CURVE_RATES * (1 - agree.mean()),
            "oracle": agreement_curve(oracle, agree, _CURVE_RATES),
        }
    )
    return {"proxy_delta": points, "deferral": curves}


def column(samples: pl.DataFrame, name: str) -> Floats:
    return samples[name].to_numpy().astype(np.float64)
