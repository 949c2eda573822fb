"""The threshold that a rule asks for and, where it promises something, its certificate."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl

from pipeline.betting import certify_drop
from pipeline.calibration import Calibration, Floats
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
from pipeline.judge import column, harmed_if_low, losses_if_low
from pipeline.oracles import has_labels
from pipeline.params.fit import FitParams, ThresholdParams
from pipeline.policy import escalate, score
from pipeline.thresholds import Costs, Threshold, choose_threshold

# Of the calibration images, where a threshold is to be certified: for direction, calibration and candidates.
_LEARNING_SHARE = 0.2
_CERTIFIED = ("risk", "accuracy_drop")


def set_certifying_apart(samples: pl.DataFrame, params: FitParams) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The calibration images that learn, and those that certify: none but for the certified rules."""
    if params.threshold.rule not in _CERTIFIED:
        return samples, samples.clear()
    learns = pl.Series(set_apart(samples["image_id"].to_list(), _LEARNING_SHARE, params.seed))
    return samples.filter(learns), samples.filter(~learns)


def choose(
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
    candidates = list_candidates(scores)
    found = _certify(params, certifying, direction, candidates)
    digests = {
        f"{name}_sha256": hashlib.sha256("\n".join(part["image_id"]).encode()).hexdigest()
        for name, part in (("learned", learned), ("certified", certifying))
    }
    about = {"learned_images": len(learned), "event": _event(rule, certifying), **digests}
    scores = score(column(certifying, "proxy"), direction)
    least = float(escalate(scores, candidates[0]).mean())
    warnings = () if found.certified else (_explain_failure(asdict(found), len(learned), least),)
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


def _explain_failure(certificate: Mapping[str, Any], learned: int, escalated: float) -> str:
    """escalated: share that the first of the candidates, of which the counts are, escalates."""
    tried = f"even where {100 * escalated:.1f} % are escalated, the most that were tried"
    return (
        f"cannot certify {describe_promise(certificate)}: {describe_ground(certificate)} {tried}; at this "
        f"rate {describe_remedy(certificate, learned)}. Every image is escalated"
    )
