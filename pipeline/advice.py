"""A recommendation in words: what it costs and loses, who does better, and the commands that follow it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import polars as pl

from pipeline.deferral import Interval
from pipeline.errors import PipelineError
from pipeline.judge import column
from pipeline.mid import is_answered, lead_of_mid
from pipeline.params.fit import FitParams
from pipeline.policy import ALWAYS_ESCALATE, is_number
from pipeline.recommend import Limits, Recommendation, confidence_each
from pipeline.timing import Floats
from pipeline.wording import milliseconds, times

Document = Mapping[str, Any]


class Mid(NamedTuple):
    """Static mid as replayed, and how far its answers are ahead of the recommended cascade's, as a share.

    quality and lead are of the images that were replayed.
    """

    images: int
    latency_ms: float
    quality: float
    lead: Interval


def find_mid(
    samples: pl.DataFrame, scores: Floats, threshold: float, measured: Document, params: FitParams
) -> Mid:
    """samples: as `mark_mid` leaves them; scores (N,) in their order; measured: of a scenario."""
    lead = lead_of_mid(samples, scores, threshold, params)
    right = column(samples.filter(is_answered(samples)), "mid_right")
    return Mid(len(right), measured["static_mid"]["latency_ms"]["mean"], float(right.mean()), lead)


def document_recommendation(
    found: Recommendation, direction: int, scenario: str, confidence: float, mid: Mid | None, stable: bool
) -> dict[str, Any]:
    """The same for programs; shares from 0 to 1, latencies in ms, `threshold` left to the settings."""
    document = asdict(found) | {
        "scenario": scenario,
        "stable": stable,
        "drop": found.drop._asdict(),
        "confidence": confidence,
        "settings": settings_of(found, direction),
    }
    del document["threshold"]  # Of the score, which is the proxy times its direction.
    return document | ({"static_mid": mid._asdict() | {"lead": mid.lead._asdict()}} if mid else {})


def refuse(names: Sequence[str], measured: Document, every: str) -> PipelineError:
    """Where nothing keeps to the limits. every: the name that stands for all proxies."""
    low_ms, high_ms = (measured[f"static_{role}"]["latency_ms"]["mean"] for role in ("low", "high"))
    return PipelineError(
        f"no threshold of {' or '.join(names)} keeps to these limits on the calibration images; "
        f"static low takes {milliseconds(low_ms)} ms, static high {milliseconds(high_ms)} ms; allow more, or "
        f"try --proxy {every}"
    )


def describe_recommendation(
    found: Recommendation,
    direction: int,
    scenario: str,
    confidence: float,
    limits: Limits,
    mid: Mid | None,
    stable: bool,
) -> list[str]:
    """Lines for the terminal. direction: of the proxy's fitted policy; confidence: of intervals and bound;
    stable: was the replay?"""
    lost = f"{100 * found.calibration_drop:+.2f}"
    lines = f"""{found.proxy}, {scenario}: escalate {found.escalation_rate:.1%} of the images
  calibration images, which chose it: {lost} points of {found.quality} lost against always-high
  evaluation images: {found.quality} {found.reached:.2%}; {_points(found.drop)} points lost
  cost: {_cost(found, limits, stable)}
  certificate: with confidence {confidence}, at most {found.risk_bound:.4f} stay low and are harmed
    ({found.harmful} of {found.images} evaluation images, which chose nothing)"""
    return [
        *lines.splitlines(),
        *([_against(mid, found)] if mid else []),
        f"  set it: dvc exp run {_options(settings_of(found, direction))}",
        *_promise(found, confidence, limits),
    ]


def _cost(found: Recommendation, limits: Limits, stable: bool) -> str:
    text = f"{milliseconds(found.latency_ms)} ms per image, {times(found.speedup)} as fast as always-high"
    text += " (by the last replay)" if stable else " (by the last replay, which was NOT stable: repeat it)"
    if found.speedup <= 1:
        text += "; static high is no slower, and loses nothing"
    if limits.latency_ms is not None and found.latency_ms > limits.latency_ms:
        cost = milliseconds(found.calibration_latency_ms)
        text += f"\n    ABOVE the limit: the calibration images cost {cost} ms"
    return text


def _against(mid: Mid, found: Recommendation) -> str:
    """A static policy in between may do better than any cascade."""
    dearer, better = mid.latency_ms > found.latency_ms, mid.lead.ci_low > 0
    worse = mid.lead.ci_high < 0
    answers = "better" if better else "worse" if worse else "level within the interval"
    verdict = f"{'dearer' if dearer else 'no dearer'}, {answers}"
    if better and not dearer:
        verdict = f"AHEAD of it: {verdict}"
    shown = f"{mid.quality:.2%} of {mid.images} replayed images, {milliseconds(mid.latency_ms)} ms"
    return f"  static mid: {shown}, {_points(mid.lead)} points of {found.quality} against it; {verdict}"


def settings_of(found: Recommendation, direction: int) -> dict[str, str | float]:
    """The parameters that make fit take the recommended threshold, in the proxy's own units."""
    if not is_number(found.threshold):
        rule, value = "escalation_rate", float(found.threshold == ALWAYS_ESCALATE)
    else:
        rule, value = "fixed", direction * found.threshold
    return {"fit.proxy": found.proxy, "fit.threshold.rule": rule, "fit.threshold.value": value}


def _options(settings: Mapping[str, str | float]) -> str:
    return " ".join(f"-S {key}={value}" for key, value in settings.items())


def _promise(found: Recommendation, confidence: float, limits: Limits) -> list[str]:
    """How to have the limit promised, for some more escalation; agreement is promised by rule risk."""
    if not limits.drop:
        return []
    rule = "accuracy_drop" if found.quality == "accuracy" else "risk"
    settings = {
        "fit.proxy": found.proxy,
        "fit.threshold.rule": rule,
        "fit.threshold.value": f"{limits.drop:g}",
    }
    command = f"  have the limit certified: dvc exp run {_options(settings)}"
    if found.tried == 1:
        return [command]
    needed = confidence_each(confidence, found.tried)
    why = (
        f"    (images that certify also chose it among {found.tried} signals: certified at {needed:.2%}, "
        f"the limit holds with confidence {confidence})"
    )
    return [f"{command} -S fit.threshold.confidence={needed!r}", why]


def _points(lost: Interval) -> str:
    value, low, high = (f"{100 * value:+.2f}" for value in lost)
    return f"{value} [{low}, {high}]"
