"""What was found of thresholds, as Markdown: certificates, limits on the loss, static mid."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from pipeline.fit import Fitted
from pipeline.frontier import Prices
from pipeline.judge import column
from pipeline.mid import is_answered, lead_of_mid, say_leads
from pipeline.oracles import has_labels
from pipeline.params.fit import FitParams
from pipeline.recommend import Limits, recommend
from pipeline.results import piped
from pipeline.timing import Floats
from pipeline.wording import DASH, Grid, milliseconds, number, percent, times

DROPS = (0.0, 0.005, 0.01)

Document = Mapping[str, Any]


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
    samples: pl.DataFrame, scores: Mapping[str, Floats], prices: Prices, params: FitParams
) -> list[str]:
    """The cheapest threshold within each drop, chosen on the calibration images, judged on the others."""
    header = ("proxy", "points allowed", "points lost on evaluation", "escalated", "ms per image", "speed-up")
    rows = []
    for name, values in scores.items():
        for drop in DROPS:
            found = recommend(samples, {name: values}, prices, Limits(drop=drop), params)
            lost = DASH if found is None else _points(found.drop._asdict())
            cells = (
                (DASH, DASH, DASH)
                if found is None
                else (percent(found.escalation_rate), milliseconds(found.latency_ms), times(found.speedup))
            )
            rows.append((name, f"{100 * drop:.1f}", lost, *cells))
    return ["", *piped(Grid(header, tuple(rows)))]


def describe_mid(
    samples: pl.DataFrame, scores: Mapping[str, Floats], prices: Prices, params: FitParams
) -> list[str]:
    """What each signal reaches for what static mid costs, held against it.

    samples: as `mark_mid` leaves them; scores: by signal, (N,) in their order.
    """
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
    for name, values in scores.items():
        found = recommend(samples, {name: values}, prices, Limits(latency_ms=cost_ms), params)
        if found is None:
            continue
        lead = leads[name] = lead_of_mid(samples, values, found.threshold, params)
        shown = (milliseconds(found.latency_ms), percent(found.escalation_rate), percent(found.reached))
        rows.append((name, *shown, _points(found.drop._asdict()), _points(lead._asdict())))
    answered = samples.filter(is_answered(samples))
    reached = percent(float(column(answered, "mid_right").mean()))
    rows.append(("static mid", milliseconds(cost_ms), DASH, reached, DASH, DASH))
    quality = "accuracy" if has_labels(samples) else "agreement"
    return ["", *piped(Grid(header, tuple(rows))), "", say_leads(leads, quality, len(answered))]


def _points(lost: Document) -> str:
    value, low, high = (f"{100 * lost[key]:+.2f}" for key in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"
