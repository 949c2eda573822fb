"""What was found of thresholds: certificates, limits on the loss, the static policy in between. Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from pipeline.deferral import Interval
from pipeline.errors import PipelineError
from pipeline.fit import Fitted
from pipeline.frontier import Prices
from pipeline.judge import column, has_labels, losses_if_low
from pipeline.params.fit import FitParams, OracleName, ThresholdParams
from pipeline.policy import escalate, score
from pipeline.recommend import Limits, Recommendation, interval_of_mean, recommend
from pipeline.results import piped
from pipeline.timing import Floats
from pipeline.wording import DASH, Grid, milliseconds, number, percent, times

ALPHAS = (0.01, 0.02, 0.05)
PROMISED_DROPS = (0.005, 0.01, 0.02)
DROPS = (0.0, 0.005, 0.01)
# Those that are followed through; the rest stand in the first tables.
FOLLOWED = ("cls_change", "cls_early_to_final", "confidence", "margin", "learned")

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Signal:
    """A proxy as fitted: its values (N,) in the order of the table of deltas, and their direction."""

    name: str
    values: Floats
    direction: int

    @property
    def scores(self) -> Floats:
        return score(self.values, self.direction)


def study_oracle(samples: pl.DataFrame) -> OracleName:
    """What the signals that are followed through predict: benefit, or disagreement without labels."""
    return "benefit" if has_labels(samples) else "disagreement"


def certified_params(
    params: FitParams, proxy: str, oracle: OracleName, rule: Literal["risk", "accuracy_drop"], value: float
) -> FitParams:
    """The same section with a certified rule."""
    threshold = ThresholdParams(rule=rule, value=value, confidence=params.threshold.confidence)
    return params.model_copy(update={"proxy": proxy, "oracle": oracle, "threshold": threshold})


def describe_certificates(fits: Mapping[tuple[str, float], Fitted], prices: Prices) -> list[str]:
    """By proxy and alpha: what the promise costs."""
    header = (
        "proxy",
        "alpha",
        "harmed / certifying",
        "escalated",
        "speed-up",
        "risk on evaluation",
        "accuracy",
    )
    rows = []
    for (proxy, alpha), fitted in fits.items():
        certificate, judged = fitted.metrics["certificate"], fitted.metrics["evaluation"]
        rate = judged["escalation_rate"]
        risk = judged["certified_risk"]
        rows.append(
            (
                proxy,
                number(alpha),
                _ground(certificate),
                percent(rate),
                times(_speedup(prices, rate)),
                f"{risk['value']:.4f} [{risk['ci_low']:.4f}, {risk['ci_high']:.4f}]",
                percent(judged.get("accuracy")),
            )
        )
    return ["", *piped(Grid(header, tuple(rows)))]


def describe_promised_drops(fits: Mapping[tuple[str, float], Fitted], prices: Prices) -> list[str]:
    """By proxy and limit: what it costs to promise the limit instead of keeping to it on one sample."""
    header = (
        "proxy",
        "points promised",
        "harmed, helped / certifying",
        "escalated",
        "speed-up",
        "points lost on evaluation",
    )
    rows = []
    for (proxy, drop), fitted in fits.items():
        found, judged = fitted.metrics["certificate"], fitted.metrics["evaluation"]
        rate = judged["escalation_rate"]
        shown = percent(rate), times(_speedup(prices, rate)), _points(judged["certified_risk"])
        rows.append((proxy, f"{100 * drop:.1f}", _ground(found), *shown))
    return ["", *piped(Grid(header, tuple(rows)))]


def _ground(certificate: Document) -> str:
    """What the certificate counted, of how many images."""
    if not certificate["certified"]:
        return "not certified"
    counts = ", ".join(str(certificate[name]) for name in ("harmful", "helped") if name in certificate)
    return f"{counts} / {certificate['images']}"


def _speedup(prices: Prices, rate: float) -> float:
    return prices.latency_ms["static_high"] / float(prices.at(pl.Series([rate]).to_numpy())[0])


def describe_limits(
    samples: pl.DataFrame, signals: Sequence[Signal], prices: Prices, params: FitParams
) -> list[str]:
    """The cheapest threshold within each drop, chosen on the calibration images, judged on the others."""
    header = ("proxy", "points allowed", "points lost on evaluation", "escalated", "ms per image", "speed-up")
    rows = []
    for signal in signals:
        for drop in DROPS:
            found = _ask(samples, signal, prices, params, Limits(drop=drop))
            lost = DASH if found is None else _points(found.drop._asdict())
            cells = (
                (DASH, DASH, DASH)
                if found is None
                else (percent(found.escalation_rate), milliseconds(found.latency_ms), times(found.speedup))
            )
            rows.append((signal.name, f"{100 * drop:.1f}", lost, *cells))
    return ["", *piped(Grid(header, tuple(rows)))]


def mark_mid(samples: pl.DataFrame, answers: pl.DataFrame, expected: pl.DataFrame) -> pl.DataFrame:
    """The samples with `mid_right`: whether static mid gives the expected answer; null where not replayed.

    answers and expected: image_id and top1, a class index; expected is the truth or, without labels, high's.
    Raises PipelineError where no evaluation image was replayed.
    """
    both = answers.join(expected, on="image_id", suffix="_expected", validate="1:1")
    right = both.select("image_id", mid_right=pl.col("top1") == pl.col("top1_expected"))
    marked = samples.join(right, on="image_id", how="left", validate="1:1", maintain_order="left")
    if not _replayed(marked).any():
        raise PipelineError("the replay holds no answers of static mid on these images; replay again")
    return marked


def _replayed(samples: pl.DataFrame) -> pl.Series:
    """(N,) The evaluation images that static mid answered."""
    return (samples["split"] == "evaluation") & samples["mid_right"].is_not_null()


def describe_mid(
    samples: pl.DataFrame, signals: Sequence[Signal], prices: Prices, params: FitParams
) -> list[str]:
    """What each signal reaches for what static mid costs, held against it; samples: as `mark_mid` leaves."""
    cost_ms = prices.latency_ms["static_mid"]
    header = (
        "policy",
        "ms per image",
        "escalated",
        "reached",
        "lost against high, points",
        "static mid ahead by, points",
    )
    rows, leads = [], {}
    for signal in signals:
        found = _ask(samples, signal, prices, params, Limits(latency_ms=cost_ms))
        if found is None:
            continue
        lead = leads[signal.name] = lead_of_mid(samples, signal, found.threshold, params)
        shown = (milliseconds(found.latency_ms), percent(found.escalation_rate), percent(found.reached))
        rows.append((signal.name, *shown, _points(found.drop._asdict()), _points(lead._asdict())))
    answered = samples.filter(_replayed(samples))
    reached = percent(float(column(answered, "mid_right").mean()))
    rows.append(("static mid", milliseconds(cost_ms), DASH, reached, DASH, DASH))
    quality = "accuracy" if has_labels(samples) else "agreement"
    return ["", *piped(Grid(header, tuple(rows))), "", say_mid(leads, quality, len(answered))]


def lead_of_mid(samples: pl.DataFrame, signal: Signal, threshold: float, params: FitParams) -> Interval:
    """The share that static mid answers rightly less that of the cascade, paired by image."""
    answered = _replayed(samples)
    judged = samples.filter(answered)
    low = ~escalate(signal.scores[answered.to_numpy()], threshold)
    high = column(judged, "high_correct") if has_labels(judged) else np.ones(len(judged))
    lead = column(judged, "mid_right") - (high - losses_if_low(judged) * low)
    return interval_of_mean(lead, params.threshold.confidence, params.bootstrap, params.seed)


def say_mid(leads: Mapping[str, Interval], quality: str, images: int) -> str:
    """leads: of static mid over the cascade of each signal that was tried."""
    if not leads:
        return "No cascade that was tried is as cheap as static mid."
    sides: dict[tuple[str, str], list[str]] = {}
    for name, lead in leads.items():
        sides.setdefault(_side(lead), []).append(name)
    found = (
        f"{side} {'each of these cascades' if len(sides) == 1 else ', '.join(names)}, {where} the intervals"
        for (side, where), names in sides.items()
    )
    tried = f"Tried: {', '.join(leads)}; paired on {images:,} images."
    return f"At equal cost, in {quality}, static mid is {'; '.join(found)}. {tried}"


def _side(lead: Interval) -> tuple[str, str]:
    side = "ahead of" if lead.value > 0 else "behind" if lead.value < 0 else "level with"
    return side, "outside" if lead.ci_low > 0 or lead.ci_high < 0 else "within"


def _ask(
    samples: pl.DataFrame, signal: Signal, prices: Prices, params: FitParams, limits: Limits
) -> Recommendation | None:
    confidence = params.threshold.confidence
    return recommend(
        samples, {signal.name: signal.scores}, prices, limits, confidence, params.bootstrap, params.seed
    )


def _points(lost: Document) -> str:
    value, low, high = (f"{100 * lost[key]:+.2f}" for key in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"
