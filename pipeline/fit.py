"""Fit the proxy to the oracle: learn on the calibration split, judge on the evaluation split."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.calibration import Calibration, Floats, expected_oracle
from pipeline.choice import choose, set_certifying_apart
from pipeline.embeddings import CONDITIONS, precisions_of
from pipeline.errors import PipelineError
from pipeline.judge import column, judge, plot_tables, why_untold
from pipeline.learned import NAME, layer_features
from pipeline.oracles import ORACLES, has_labels
from pipeline.params.fit import FitParams
from pipeline.policy import Policy, decide, is_number, score
from pipeline.proxies import get_proxy
from pipeline.regression import calibrate, learn_direction, learn_proxy, rank_correlation
from pipeline.samples import join_proxies
from pipeline.thresholds import Costs


class Fitted(NamedTuple):
    """policy, the metrics of metrics/fit.json, plot tables by name, and warnings for the user."""

    policy: Policy
    metrics: dict[str, Any]
    plots: dict[str, pl.DataFrame]
    warnings: tuple[str, ...]


def read_samples(low: Path, deltas: Path, params: FitParams) -> pl.DataFrame:
    """The deltas with columns `oracle` and `proxy`, or `features` (N, F) where the proxy is to be learned."""
    if params.proxy == NAME:
        joined = join_proxies(low, deltas, {"features": layer_features})
    else:
        joined = join_proxies(low, deltas, {"proxy": get_proxy(params.proxy)})
    return joined.with_columns(oracle=pl.Series(ORACLES[params.oracle](joined)))


def fit(
    samples: pl.DataFrame, params: FitParams, fingerprint: Mapping[str, Any], costs: Costs | None = None
) -> Fitted:
    """`samples` as from `read_samples`; `fingerprint` that of the deltas; `costs` of rule latency_budget.

    Raises PipelineError where the rule asks for what these images or costs do not tell.
    """
    if params.threshold.rule == "accuracy_drop" and not has_labels(samples):
        raise PipelineError(
            "fit.threshold.rule: accuracy_drop needs labels that the model knows, of every image; stage "
            "delta prints why there are none. Name the weights' classes as model.classes, or use rule "
            "escalation_rate or risk"
        )
    samples, coefficients = _learn(samples, params)
    calibrating, judged = (samples.filter(split=name) for name in ("calibration", "evaluation"))
    learned, certifying = set_certifying_apart(calibrating, params)
    proxy, oracle = column(learned, "proxy"), column(learned, "oracle")
    direction = learn_direction(proxy, oracle)
    scores = score(proxy, direction)
    calibration = calibrate(params.calibration, scores, oracle)
    threshold, certificate = choose(params, learned, certifying, direction, calibration, costs)
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
        coefficients=coefficients,
    )
    metrics = _measure(policy, calibration, calibrating, judged, params)
    warnings = (*_warn_of_nothing_learned(policy, oracle), *threshold.warnings, *_warn_of_few(judged))
    return Fitted(policy, metrics, plot_tables(judged, policy, calibration), warnings)


def _learn(samples: pl.DataFrame, params: FitParams) -> tuple[pl.DataFrame, tuple[float, ...]]:
    """The samples with column `proxy`, and the coefficients that it took: none where it is not learned."""
    if params.proxy != NAME:
        return samples, ()
    learned, _certifying = set_certifying_apart(samples.filter(split="calibration"), params)
    model = learn_proxy(learned["features"].to_numpy(), column(learned, "oracle"))
    values = model.apply(samples["features"].to_numpy())
    return samples.with_columns(proxy=pl.Series(values)).drop("features"), model.coefficients


def _measure(
    policy: Policy,
    calibration: Calibration,
    calibrating: pl.DataFrame,
    judged: pl.DataFrame,
    params: FitParams,
) -> dict[str, Any]:
    """The numbers of metrics/fit.json."""
    return {
        "threshold": policy.threshold,
        "confidence": params.threshold.confidence,
        "direction": policy.direction,
        "threshold_proxy": policy.direction * policy.threshold,
        "threshold_oracle": float(expected_oracle(calibration, np.array([policy.threshold]))[0])
        if is_number(policy.threshold)
        else None,
        "calibration": {
            "images": len(calibrating),
            "escalation_rate": float(decide(policy, column(calibrating, "proxy")).mean()),
            "spearman": rank_correlation(
                score(column(calibrating, "proxy"), policy.direction), column(calibrating, "oracle")
            ),
        },
        "certificate": _numbers(policy.certificate) or None,
        **judge(judged, policy, calibration, params),
    }


def _warn_of_nothing_learned(policy: Policy, oracle: Floats) -> list[str]:
    """oracle: of the images that were to teach it."""
    if policy.proxy != NAME or any(policy.coefficients):
        return []
    found = f"{np.count_nonzero(oracle)} of the {len(oracle)} images that it learns from are events of"
    return [f"learned is the same for all images: {found} {policy.oracle}, too few to tell from the others"]


def _warn_of_few(judged: pl.DataFrame) -> list[str]:
    found = why_untold(column(judged, "oracle"))
    return [f"{found}: nothing is claimed from them; draw more with data.evaluation_images"] if found else []


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
    found = {key: low[key] for key in CONDITIONS} | {"low_px": low["size_px"], "high_px": high["size_px"]}
    return found | {key: value for key, value in precisions_of(low).items() if value}
