"""Fit the proxy to the oracle: learn on the calibration split, judge on the evaluation split."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.calibration import (
    Calibration,
    calibrate,
    expected_oracle,
    learn_direction,
    rank_correlation,
)
from pipeline.certify import Certificate, certify, list_candidates, set_apart
from pipeline.embeddings import CONDITIONS
from pipeline.judge import column, harmed_if_low, has_labels, judge, plot_tables
from pipeline.oracles import ORACLES
from pipeline.params.fit import FitParams
from pipeline.policy import Policy, decide, score
from pipeline.samples import join_proxies
from pipeline.thresholds import Threshold, choose_threshold

# Of the calibration images, where a threshold is to be certified: for direction, calibration and candidates.
_LEARNING_SHARE = 0.2


class Fitted(NamedTuple):
    """policy, the metrics of metrics/fit.json, plot tables by name, and warnings for the user."""

    policy: Policy
    metrics: dict[str, Any]
    plots: dict[str, pl.DataFrame]
    warnings: tuple[str, ...]


def read_samples(low: Path, deltas: Path, params: FitParams) -> pl.DataFrame:
    """The deltas with columns `proxy` and `oracle`, joined on image_id."""
    joined = join_proxies(low, deltas, [params.proxy]).rename({params.proxy: "proxy"})
    return joined.with_columns(oracle=pl.Series(ORACLES[params.oracle](joined)))


def fit(samples: pl.DataFrame, params: FitParams, fingerprint: Mapping[str, Any]) -> Fitted:
    """`samples` as from `read_samples`; `fingerprint` that of the deltas."""
    calibrating, judged = (samples.filter(split=name) for name in ("calibration", "evaluation"))
    learned, certifying = _set_apart(calibrating, params)
    proxy, oracle = column(learned, "proxy"), column(learned, "oracle")
    direction = learn_direction(proxy, oracle)
    scores = score(proxy, direction)
    calibration = calibrate(params.calibration, scores, oracle)
    threshold, certificate = _choose(params, learned, certifying, direction, calibration)
    policy = Policy(
        oracle=params.oracle,
        proxy=params.proxy,
        direction=direction,
        threshold=threshold.value,
        rule=params.threshold.rule,
        value=params.threshold.value,
        calibration=asdict(calibration),
        calibration_images=len(calibrating),
        made_for=conditions(fingerprint),
        certificate=certificate,
    )
    metrics = {
        "threshold": policy.threshold,
        "direction": direction,
        "threshold_proxy": direction * policy.threshold,
        "threshold_oracle": float(expected_oracle(calibration, np.array([policy.threshold]))[0])
        if abs(policy.threshold) < np.finfo(np.float64).max
        else None,
        "calibration": {
            "images": len(calibrating),
            "escalation_rate": float(decide(policy, column(calibrating, "proxy")).mean()),
            "spearman": rank_correlation(scores, oracle),
        },
        "certificate": _numbers(certificate) or None,
        **judge(judged, policy, calibration, params),
    }
    return Fitted(policy, metrics, plot_tables(judged, policy, calibration), threshold.warnings)


def _set_apart(samples: pl.DataFrame, params: FitParams) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The calibration images that learn, and those that certify what was learned: none but for rule risk."""
    if params.threshold.rule != "risk":
        return samples, samples.clear()
    learns = pl.Series(set_apart(samples["image_id"].to_list(), _LEARNING_SHARE, params.seed))
    return samples.filter(learns), samples.filter(~learns)


def _choose(
    params: FitParams,
    learned: pl.DataFrame,
    certifying: pl.DataFrame,
    direction: int,
    calibration: Calibration,
) -> tuple[Threshold, dict[str, Any]]:
    """The threshold, and its certificate where the rule asks for one."""
    rule, scores = params.threshold, score(column(learned, "proxy"), direction)
    if rule.rule != "risk":
        return choose_threshold(rule, scores, direction, calibration), {}
    found = certify(
        score(column(certifying, "proxy"), direction),
        harmed_if_low(certifying),
        list_candidates(scores),
        rule.value,
        rule.confidence,
    )
    digests = {
        f"{name}_sha256": hashlib.sha256("\n".join(part["image_id"]).encode()).hexdigest()
        for name, part in (("learned", learned), ("certified", certifying))
    }
    event = "harm" if has_labels(certifying) else "disagreement"
    about = {"event": event, "learned_images": len(learned), **digests}
    warnings = () if found.certified else (_explain_failure(found, event),)
    return Threshold(found.threshold, warnings), {**asdict(found), **about}


def _explain_failure(found: Certificate, event: str) -> str:
    needed = (
        f"about {found.needed_images} would do" if found.needed_images else "no number of images would do"
    )
    return (
        f"cannot certify a risk of {found.alpha} at confidence {found.confidence}: {found.harmful} of "
        f"{found.images} images meet {event} even where nearly all are escalated; at this rate {needed}. "
        "Every image is escalated"
    )


def _numbers(certificate: Mapping[str, Any]) -> dict[str, float]:
    """What DVC can compare, without the policy's digests and names."""
    return {
        name: value if isinstance(value, float) else int(value)
        for name, value in certificate.items()
        if isinstance(value, bool | int | float) and name != "threshold"
    }


def conditions(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What a policy was made for, from the fingerprint of the deltas."""
    low, high = fingerprint["low"], fingerprint["high"]
    return {key: low[key] for key in CONDITIONS} | {"low_px": low["size_px"], "high_px": high["size_px"]}
