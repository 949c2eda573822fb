"""Fit the proxy to the oracle: learn on the calibration split, judge on the evaluation split."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from pipeline.calibration import (
    Calibration,
    Floats,
    calibrate,
    expected_oracle,
    learn_direction,
    rank_correlation,
)
from pipeline.deferral import agreement_curve, agreement_over_random, gain_over_random
from pipeline.embeddings import CONDITIONS, measure_proxy, read_set_fingerprint
from pipeline.errors import PipelineError
from pipeline.oracles import ORACLES
from pipeline.params.fit import FitParams
from pipeline.policy import Policy, decide, score
from pipeline.tables import read_fingerprint, read_table
from pipeline.thresholds import choose_threshold

_CURVE_RATES = np.linspace(0, 1, 101)


class Fitted(NamedTuple):
    """policy, the metrics of metrics/fit.json, plot tables by name, and warnings for the user."""

    policy: Policy
    metrics: dict[str, Any]
    plots: dict[str, pl.DataFrame]
    warnings: tuple[str, ...]


def read_samples(low: Path, deltas: Path, params: FitParams) -> pl.DataFrame:
    """The deltas with columns `proxy` and `oracle`, joined on image_id.

    Refuses embeddings that the deltas were not made from, so that no threshold mixes two models.
    """
    if read_fingerprint(deltas).get("low") != read_set_fingerprint(low, "low"):
        raise PipelineError(f"{deltas}: made from other low embeddings than {low}; run delta again")
    table = pl.from_arrow(
        read_table(deltas, ["image_id", "split", "delta", "agree", "low_correct", "high_correct"])
    )
    assert isinstance(table, pl.DataFrame)
    ids, values = measure_proxy(low, params.proxy)
    proxies = pl.DataFrame({"image_id": ids, "proxy": values})
    joined = table.join(proxies, on="image_id", how="left", validate="1:1", maintain_order="left")
    unmatched = joined["proxy"].null_count()
    if unmatched or len(proxies) != len(table):
        raise PipelineError(
            f"{low} has {len(proxies)} images, {deltas} has {len(table)}, {unmatched} of them without a "
            "low embedding; run extract and delta again"
        )
    return joined.with_columns(oracle=pl.Series(ORACLES[params.oracle](joined)))


def fit(samples: pl.DataFrame, params: FitParams, fingerprint: Mapping[str, Any]) -> Fitted:
    """`samples` as from `read_samples`; `fingerprint` that of the deltas."""
    learned, judged = (samples.filter(split=name) for name in ("calibration", "evaluation"))
    proxy, oracle = _column(learned, "proxy"), _column(learned, "oracle")
    direction = learn_direction(proxy, oracle)
    scores = score(proxy, direction)
    calibration = calibrate(params.calibration, scores, oracle)
    threshold = choose_threshold(params.threshold, scores, direction, calibration)
    policy = Policy(
        oracle=params.oracle,
        proxy=params.proxy,
        direction=direction,
        threshold=threshold.value,
        rule=params.threshold.rule,
        value=params.threshold.value,
        calibration=asdict(calibration),
        calibration_images=len(learned),
        made_for=conditions(fingerprint),
    )
    metrics = {
        "threshold": policy.threshold,
        "direction": direction,
        "threshold_proxy": direction * policy.threshold,
        "threshold_oracle": float(expected_oracle(calibration, np.array([policy.threshold]))[0])
        if abs(policy.threshold) < np.finfo(np.float64).max
        else None,
        "calibration": {
            "images": len(learned),
            "escalation_rate": float(decide(policy, proxy).mean()),
            "spearman": rank_correlation(scores, oracle),
        },
        **_judge(judged, policy, calibration, params),
    }
    return Fitted(policy, metrics, _plots(judged, policy, calibration), threshold.warnings)


def conditions(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What a policy was made for, from the fingerprint of the deltas."""
    low, high = fingerprint["low"], fingerprint["high"]
    return {key: low[key] for key in CONDITIONS} | {"low_px": low["size_px"], "high_px": high["size_px"]}


def _judge(
    samples: pl.DataFrame, policy: Policy, calibration: Calibration, params: FitParams
) -> dict[str, Any]:
    """How the policy does on images that it has not seen, beside random and oracle at the same rate."""
    proxy, oracle = _column(samples, "proxy"), _column(samples, "oracle")
    agree = samples["agree"].to_numpy()
    scores, escalated = score(proxy, policy.direction), decide(policy, proxy)
    rate = float(escalated.mean())
    draw = (params.threshold.confidence, params.bootstrap, params.seed)
    gain = gain_over_random(scores, oracle, *draw)
    error = np.abs(expected_oracle(calibration, scores) - oracle).mean()
    evaluation = {
        "images": len(samples),
        "escalation_rate": rate,
        "agreement": float((agree | escalated).mean()),
        "random_agreement": float(agree.mean() + rate * (1 - agree.mean())),
        "oracle_agreement": float(agreement_curve(oracle, agree, np.array([rate]))[0]),
        "spearman": rank_correlation(scores, oracle),
        "auroc": _auroc(oracle if params.oracle == "benefit" else ~agree, scores),
        "calibration_error": float(error),
        "agreement_over_random": agreement_over_random(escalated, agree, *draw)._asdict(),
        "gain_over_random": gain._asdict() if gain else None,
        **_with_labels(samples, escalated),
    }
    return {"evaluation": evaluation, "beats_random": int(gain is not None and gain.ci_low > 0)}


def _with_labels(samples: pl.DataFrame, escalated: Any) -> dict[str, float]:
    """Accuracy and harm, where the model knows the classes."""
    if samples["low_correct"].null_count():
        return {}
    low, high = samples["low_correct"].to_numpy(), samples["high_correct"].to_numpy()
    return {
        "accuracy": float(np.where(escalated, high, low).mean()),
        "harm_rate": float((~escalated & high & ~low).mean()),
    }


def _auroc(event: Any, scores: Floats) -> float | None:
    event = np.asarray(event, dtype=bool)
    return float(roc_auc_score(event, scores)) if 0 < event.sum() < len(event) else None


def _plots(samples: pl.DataFrame, policy: Policy, calibration: Calibration) -> dict[str, pl.DataFrame]:
    proxy, oracle = _column(samples, "proxy"), _column(samples, "oracle")
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


def _column(samples: pl.DataFrame, name: str) -> Floats:
    return samples[name].to_numpy().astype(np.float64)
