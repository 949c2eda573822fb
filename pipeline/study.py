"""What was found on one data set: signals, certificates, and the static policy in between, as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from pipeline.fit import Fitted
from pipeline.frontier import Prices
from pipeline.headroom import Headroom
from pipeline.judge import has_labels
from pipeline.oracles import ORACLES
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


def describe_signals(compared: Mapping[str, Document], leads: Mapping[str, Document]) -> list[str]:
    """A table for each oracle, and what it says; `leads`: with differences to the best single proxy."""
    parts: list[str] = []
    for oracle in (name for name in ORACLES if name in compared):
        by_proxy = compared[oracle]
        order = _best_first(by_proxy)
        parts += ["", f"**{oracle}**", "", *piped(_signal_grid(by_proxy, order)), ""]
        parts.append(_say_lead(order, leads[oracle]))
    return parts


def best_single(by_proxy: Document) -> str:
    """The proxy, other than the learned one, that gains most over random escalation."""
    return next(name for name in _best_first(by_proxy) if name != "learned")


def _best_first(by_proxy: Document) -> list[str]:
    known = [name for name, item in by_proxy.items() if item["gain_over_random"]]
    return sorted(known, key=lambda name: -by_proxy[name]["gain_over_random"]["value"])


def _signal_grid(by_proxy: Document, order: Sequence[str]) -> Grid:
    rates = ("at_10", "at_20", "at_30")
    quality = "accuracy" if "accuracy" in by_proxy[order[0]] else "agreement"
    header = (
        "proxy",
        "gain over random",
        "AUROC",
        *(f"{quality} {rate.replace('_', ' ')} %" for rate in rates),
    )
    rows = (
        (
            name,
            _interval(by_proxy[name]["gain_over_random"]),
            number(by_proxy[name].get("auroc")),
            *(percent(by_proxy[name][quality][rate]) for rate in rates),
        )
        for name in order
    )
    return Grid(header, tuple(rows))


def _interval(found: Mapping[str, float], signed: bool = False) -> str:
    value, low, high = (f"{found[key]:{'+' if signed else ''}.3f}" for key in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


def _say_lead(order: Sequence[str], against: Document) -> str:
    """`against`: the same oracle, with differences to the best single proxy."""
    single = next(name for name in order if name != "learned")
    lead, change = (against[name]["difference"] for name in ("learned", "cls_change"))
    side = "NOT outside"
    if lead["ci_low"] > 0:
        side = "outside"
    elif lead["value"] <= 0:
        side = "behind, and not outside"
    shown = _interval(lead, signed=True)
    text = f"Best single: {single}. `learned` less {single}: {shown}, {side} the interval."
    if single != "cls_change":
        text += f" `cls_change` less {single}: {_interval(change, signed=True)}."
    return text


def describe_headroom(oracle: str, single: str, found: Headroom) -> list[str]:
    """One paragraph, below the tables of the signals."""
    gain, lead = _interval(found.gain._asdict()), _interval(found.difference._asdict(), signed=True)
    verdict = (
        "there is more in these features than a weighted sum takes"
        if found.difference.ci_low > 0
        else f"a larger model finds no more in these features than `{single}` shows"
    )
    text = f"What could be had: boosted trees on the features of `learned` gain {gain} on {oracle}"
    return ["", f"{text}; less {single}: {lead}. So {verdict}."]


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
