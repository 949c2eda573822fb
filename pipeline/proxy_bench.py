"""Every proxy against every oracle, on the evaluation images; directions come from the calibration images."""

import time
from collections.abc import Mapping
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.calibration import Floats
from pipeline.deferral import (
    Counts,
    accuracy_curve,
    agreement_curve,
    area_over_random,
    capture,
    draw_weights,
    percentile_interval,
    ratio,
    resample,
)
from pipeline.judge import why_untold
from pipeline.learned import NAME
from pipeline.oracles import ORACLES, has_labels
from pipeline.params.fit import FitParams, OracleName
from pipeline.policy import score
from pipeline.proxies import Proxy
from pipeline.regression import learn_direction, learn_proxy, rank_correlation

RATES = (0.05, 0.1, 0.2, 0.3)
_FAR = 0.1
_TIMED_ROUNDS = 200


def compare_proxies(
    deltas: pl.DataFrame, proxies: Mapping[str, Floats], features: Floats, params: FitParams
) -> dict[str, dict[str, dict[str, Any]]]:
    """By oracle and proxy, what tells how well one predicts the other.

    deltas: table of deltas; proxies: values by name (N,), in its order; features (N, F): what `learned` is
    made of, anew for each oracle, on the calibration images. `difference` is that of the gain to
    `params.proxy`'s, over the same resamples. told: 0 where images or events are too few for a claim. Without
    labels, benefit and what needs labels are left out.
    """
    learns = (deltas["split"] == "calibration").to_numpy()
    judged = deltas.filter(~pl.Series(learns))
    weights = draw_weights(len(judged), params.bootstrap, params.seed)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for oracle_name in _usable_oracles(deltas):
        oracle = ORACLES[oracle_name](deltas)
        model = learn_proxy(features[learns], oracle[learns])
        known = {**proxies, NAME: model.apply(features)}
        scores = {
            name: score(values, learn_direction(values[learns], oracle[learns]))[~learns]
            for name, values in known.items()
        }
        told = all(why_untold(oracle[part]) is None for part in (learns, ~learns))
        gains = _gains(scores, oracle[~learns], weights)
        reference = gains[params.proxy]
        found[oracle_name] = {
            name: {
                **_describe(values, oracle[~learns], judged),
                "gain_over_random": _interval(gains[name], params.threshold.confidence),
                "difference": _interval(gains[name] - reference, params.threshold.confidence),
                "told": int(told),
            }
            for name, values in scores.items()
        }
    return found


def _usable_oracles(deltas: pl.DataFrame) -> list[OracleName]:
    return [name for name in ORACLES if has_labels(deltas) or name != "benefit"]


def _gains(scores: Mapping[str, Floats], oracle: Floats, weights: Counts) -> dict[str, Floats]:
    """By proxy (R + 1,): the gain over random on the images as they are, then on every resample."""
    if np.ptp(oracle) == 0:
        return dict.fromkeys(scores, np.full(len(weights) + 1, np.nan))
    most = resample(partial(area_over_random, oracle, oracle), weights)
    return {
        name: ratio(resample(partial(area_over_random, values, oracle), weights), most)
        for name, values in scores.items()
    }


def _interval(values: Floats, confidence: float) -> dict[str, float] | None:
    if np.isnan(values).all():
        return None
    return percentile_interval(values, confidence)._asdict()


def _describe(scores: Floats, oracle: Floats, judged: pl.DataFrame) -> dict[str, Any]:
    agree = judged["agree"].to_numpy()
    rates = np.array(RATES)
    # Of a distance, the event is that it is among the tenth that is largest.
    event = oracle > (np.quantile(oracle, 1 - _FAR) if len(np.unique(oracle)) > 2 else 0)
    found: dict[str, Any] = {
        "spearman": rank_correlation(scores, oracle),
        "agreement": _by_rate(agreement_curve(scores, agree, rates)),
    }
    if 0 < event.sum() < len(event):
        found |= {
            "auroc": float(roc_auc_score(event, scores)),
            "auprc": float(average_precision_score(event, scores)),
        }
    if has_labels(judged):
        low, high = judged["low_correct"].to_numpy(), judged["high_correct"].to_numpy()
        found["accuracy"] = _by_rate(accuracy_curve(scores, low, high, rates))
        found |= selective_risk(scores, ~low)
    return found


def _by_rate(values: Floats) -> dict[str, float]:
    return {f"at_{round(100 * rate):02d}": float(value) for rate, value in zip(RATES, values, strict=True)}


def selective_risk(scores: Floats, wrong: NDArray[np.bool_]) -> dict[str, float]:
    """AURC (Geifman & El-Yaniv 2017) and AUGRC (Traub et al. 2024) of low's answers; smaller is better.

    The mean over coverages of the share of wrong answers among those kept, and among all.
    """
    # From one image kept, as all but one are escalated, to all kept.
    kept_wrong = wrong.sum() - capture(scores, wrong)[-2::-1]
    coverage = np.arange(1, len(wrong) + 1)
    return {"aurc": float((kept_wrong / coverage).mean()), "augrc": float((kept_wrong / len(wrong)).mean())}


def measure_overlap(deltas: pl.DataFrame) -> dict[str, float]:
    """How the oracles relate on the evaluation images: shares of them that meet each event, and each pair.

    far: among the tenth with the largest delta. Without labels, benefit is left out.
    """
    judged = deltas.filter(split="evaluation")
    delta = judged["delta"].to_numpy()
    events = {"far": delta > np.quantile(delta, 1 - _FAR)}
    for name in _usable_oracles(deltas)[1:]:
        events[name] = ORACLES[name](judged) > 0
    shares = {name: float(event.mean()) for name, event in events.items()}
    pairs = {f"{a}_and_{b}": float((events[a] & events[b]).mean()) for a, b in combinations(events, 2)}
    return {**shares, **pairs}


def time_proxies(
    proxies: Mapping[str, Proxy], trace: NDArray[np.float32], logits: NDArray[np.float32]
) -> dict[str, float]:
    """Median microseconds of each formula in NumPy on one image: trace (1, L+1, D), logits (1, C)."""
    taken: dict[str, list[int]] = {name: [] for name in proxies}
    for _ in range(_TIMED_ROUNDS):
        for name, proxy in proxies.items():
            started_ns = time.perf_counter_ns()
            proxy(trace, logits)
            taken[name].append(time.perf_counter_ns() - started_ns)
    return {name: float(np.median(values)) / 1000 for name, values in taken.items()}


def list_rows(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The comparison as rows of one table, nested names joined by an underscore."""
    return [
        {"oracle": oracle, "proxy": proxy, **_flatten(item)}
        for oracle, by_proxy in found.items()
        for proxy, item in by_proxy.items()
    ]


def _flatten(item: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in item.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}_")
        else:
            flat[prefix + name] = value
    return flat
