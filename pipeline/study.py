"""What was found of thresholds: certificates, limits on the loss, the static policy in between. Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from pipeline.fit import Fitted
from pipeline.frontier import Prices
from pipeline.judge import has_labels
from pipeline.params.fit import FitParams, OracleName, ThresholdParams
from pipeline.policy import score
from pipeline.recommend import Limits, Recommendation, recommend
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


def describe_mid(
    samples: pl.DataFrame, signals: Sequence[Signal], prices: Prices, mid: Document, params: FitParams
) -> list[str]:
    """What each signal reaches for what static mid costs."""
    cost_ms = mid["latency_ms"]["mean"]
    header = ("policy", "ms per image", "escalated", "reached", "lost against high, points")
    rows = []
    ahead = []
    for signal in signals:
        found = _ask(samples, signal, prices, params, Limits(latency_ms=cost_ms))
        if found is None:
            continue
        shown = (milliseconds(found.latency_ms), percent(found.escalation_rate), percent(found.reached))
        rows.append((signal.name, *shown, _points(found.drop._asdict())))
        if found.reached > mid[found.quality]:
            ahead.append(signal.name)
    quality = "accuracy" if has_labels(samples) else "agreement"
    rows.append(("static mid", milliseconds(cost_ms), DASH, percent(mid[quality]), DASH))
    verdict = (
        f"At equal cost these are ahead of static mid in {quality}: {', '.join(ahead)}."
        if ahead
        else f"At equal cost static mid is ahead of every cascade of low and high in {quality}."
    )
    return ["", *piped(Grid(header, tuple(rows))), "", verdict]


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
