"""Fit the proxy to the oracle: learn on the calibration split, judge on the evaluation split."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.betting import certify_drop
from pipeline.calibration import (
    Calibration,
    Floats,
    calibrate,
    expected_oracle,
    learn_direction,
    learn_proxy,
    rank_correlation,
)
from pipeline.certify import (
    Certificate,
    certify,
    describe_ground,
    describe_promise,
    describe_remedy,
    draw_order,
    list_candidates,
    set_apart,
)
from pipeline.costs import check_costs
from pipeline.embeddings import CONDITIONS
from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.judge import column, harmed_if_low, has_labels, judge, losses_if_low, plot_tables
from pipeline.learned import NAME, layer_features
from pipeline.oracles import ORACLES
from pipeline.params.fit import FitParams, ThresholdParams
from pipeline.policy import Policy, decide, score
from pipeline.proxies import get_proxy
from pipeline.samples import join_proxies
from pipeline.thresholds import Costs, Threshold, choose_threshold
from pipeline.timing import FEWEST_IMAGES

# Of the calibration images, where a threshold is to be certified: for direction, calibration and candidates.
_LEARNING_SHARE = 0.2
_CERTIFIED = ("risk", "accuracy_drop")


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
            "fit.threshold.rule: accuracy_drop needs labels that the model knows; these weights name no "
            "classes of the data. Use escalation_rate or risk, or weights whose metadata lists their classes"
        )
    samples, coefficients = _learn(samples, params)
    calibrating, judged = (samples.filter(split=name) for name in ("calibration", "evaluation"))
    learned, certifying = _set_apart(calibrating, params)
    proxy, oracle = column(learned, "proxy"), column(learned, "oracle")
    direction = learn_direction(proxy, oracle)
    scores = score(proxy, direction)
    calibration = calibrate(params.calibration, scores, oracle)
    threshold, certificate = _choose(params, learned, certifying, direction, calibration, costs)
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
            "spearman": rank_correlation(
                score(column(calibrating, "proxy"), direction), column(calibrating, "oracle")
            ),
        },
        "certificate": _numbers(certificate) or None,
        **judge(judged, policy, calibration, params),
    }
    warnings = (*_warn_of_nothing_learned(policy, oracle), *threshold.warnings, *_warn_of_few(judged))
    return Fitted(policy, metrics, plot_tables(judged, policy, calibration), warnings)


def _learn(samples: pl.DataFrame, params: FitParams) -> tuple[pl.DataFrame, tuple[float, ...]]:
    """The samples with column `proxy`, and the coefficients that it took: none where it is not learned."""
    if params.proxy != NAME:
        return samples, ()
    learned, _certifying = _set_apart(samples.filter(split="calibration"), params)
    model = learn_proxy(learned["features"].to_numpy(), column(learned, "oracle"))
    values = model.apply(samples["features"].to_numpy())
    return samples.with_columns(proxy=pl.Series(values)).drop("features"), model.coefficients


def _set_apart(samples: pl.DataFrame, params: FitParams) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The calibration images that learn, and those that certify: none but for the certified rules."""
    if params.threshold.rule not in _CERTIFIED:
        return samples, samples.clear()
    learns = pl.Series(set_apart(samples["image_id"].to_list(), _LEARNING_SHARE, params.seed))
    return samples.filter(learns), samples.filter(~learns)


def _choose(
    params: FitParams,
    learned: pl.DataFrame,
    certifying: pl.DataFrame,
    direction: int,
    calibration: Calibration,
    costs: Costs | None,
) -> tuple[Threshold, dict[str, Any]]:
    """The threshold, and its certificate where the rule asks for one."""
    rule, scores = params.threshold, score(column(learned, "proxy"), direction)
    if rule.rule not in _CERTIFIED:
        return choose_threshold(rule, scores, direction, calibration, costs), {}
    found = _certify(params, certifying, direction, list_candidates(scores))
    digests = {
        f"{name}_sha256": hashlib.sha256("\n".join(part["image_id"]).encode()).hexdigest()
        for name, part in (("learned", learned), ("certified", certifying))
    }
    about = {"learned_images": len(learned), "event": _event(rule, certifying), **digests}
    warnings = () if found.certified else (_explain_failure(asdict(found)),)
    return Threshold(found.threshold, warnings), {**asdict(found), **about}


def _certify(params: FitParams, certifying: pl.DataFrame, direction: int, candidates: Floats) -> Certificate:
    rule, drawn = params.threshold, draw_order(certifying["image_id"].to_list(), params.seed)
    samples = certifying[drawn]
    scores = score(column(samples, "proxy"), direction)
    if rule.rule == "risk":
        return certify(scores, harmed_if_low(samples), candidates, rule.value, rule.confidence)
    return certify_drop(scores, losses_if_low(samples), candidates, rule.value, rule.confidence)


def _event(rule: ThresholdParams, samples: pl.DataFrame) -> str:
    """What an image that stays low meets, of which the certificate limits how many do."""
    if rule.rule == "accuracy_drop":
        return "harm less help"
    return "harm" if has_labels(samples) else "disagreement"


def _explain_failure(certificate: Mapping[str, Any]) -> str:
    return (
        f"cannot certify {describe_promise(certificate)}: {describe_ground(certificate)} even where nearly "
        f"all are escalated; at this rate {describe_remedy(certificate)}. Every image is escalated"
    )


def _warn_of_nothing_learned(policy: Policy, oracle: Floats) -> list[str]:
    """oracle: of the images that were to teach it."""
    if policy.proxy != NAME or any(policy.coefficients):
        return []
    found = f"{np.count_nonzero(oracle)} of the {len(oracle)} images that it learns from are events of"
    return [f"learned is the same for all images: {found} {policy.oracle}, too few to tell from the others"]


def _warn_of_few(judged: pl.DataFrame) -> list[str]:
    if len(judged) >= FEWEST_IMAGES:
        return []
    found = f"{len(judged)} evaluation images are too few for intervals (expected {FEWEST_IMAGES} or more)"
    return [f"{found}: nothing is claimed from them; draw more with data.evaluation_images"]


def _numbers(certificate: Mapping[str, Any]) -> dict[str, float]:
    """What DVC can compare, without the policy's digests and names."""
    return {
        name: value if isinstance(value, float) else int(value)
        for name, value in certificate.items()
        if isinstance(value, bool | int | float) and name != "threshold"
    }


def read_costs(path: Path, made_for: Mapping[str, Any], processor: str) -> Costs:
    """Mean milliseconds of one image, from metrics/profile.json.

    Raises PipelineError where they were measured on another processor, or with another precision or other
    sizes than the embeddings, which may come from another machine and so from another backend.
    """
    profile = read_json(path)
    running = {"precision": made_for["precision"], "processor": processor}
    check_costs(profile, running, {"low": made_for["low_px"], "high": made_for["high_px"]}, path)
    return Costs(*(profile[role]["latency_ms"]["mean"] for role in ("low", "high")))


def conditions(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What a policy was made for, from the fingerprint of the deltas."""
    low, high = fingerprint["low"], fingerprint["high"]
    return {key: low[key] for key in CONDITIONS} | {"low_px": low["size_px"], "high_px": high["size_px"]}
