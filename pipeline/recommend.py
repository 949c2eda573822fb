"""Which threshold to take for a limit on accuracy or on latency.

Chosen on the calibration images alone; what is said of it comes from the evaluation images, which chose
nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.certify import risk_bound
from pipeline.deferral import Interval
from pipeline.frontier import Prices
from pipeline.judge import harmed_if_low, losses_if_low
from pipeline.oracles import has_labels
from pipeline.paired import interval_of_difference
from pipeline.params.fit import FitParams
from pipeline.policy import escalate
from pipeline.thresholds import at_rate
from pipeline.timing import Floats

_RATES = np.linspace(0, 1, 201)

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """drop: of quality against always-high, as a share. latency_ms: mean per image. None: no limit."""

    drop: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Recommendation:
    """A threshold, and what is known of it.

    proxy: whose scores; threshold: in their units. quality: accuracy or, without labels, agreement with
    always-high.
    calibration_drop and drop: quality lost against always-high, on the images that chose and on the others;
    calibration_latency_ms and latency_ms: what these cost.
    risk_bound: exact upper bound of P(stays low and is harmed) at the confidence asked for. tried: proxies
    among which this one was chosen.
    """

    proxy: str
    threshold: float
    quality: str
    escalation_rate: float
    calibration_drop: float
    drop: Interval
    reached: float
    calibration_latency_ms: float
    latency_ms: float
    speedup: float
    harmful: int
    images: int
    risk_bound: float
    tried: int


class _Choice(NamedTuple):
    """A threshold, and what it costs and loses on the images that chose it."""

    latency_ms: float
    drop: float
    threshold: float


def recommend(
    samples: pl.DataFrame,
    scores: Mapping[str, Floats],
    prices: Prices,
    limits: Limits,
    params: FitParams,
) -> Recommendation | None:
    """The cheapest threshold of any of the proxies within the limits; at one cost, the one that loses least.

    samples: table of deltas; scores: by proxy, (N,) in its order. With a limit on latency alone,
    the one that loses least. None where no threshold is within the limits on the calibration images.
    """
    learns = (samples["split"] == "calibration").to_numpy()
    losses = losses_if_low(samples)
    chosen = {
        name: choice
        for name, values in scores.items()
        if (choice := _choose(values[learns], losses[learns], prices, limits))
    }
    if not chosen:
        return None
    proxy = min(chosen, key=lambda name: _order(chosen[name], limits))
    judged = samples.filter(~pl.Series(learns))
    return _judge(proxy, chosen[proxy], judged, scores[proxy][~learns], prices, params, len(scores))


def _judge(
    proxy: str,
    choice: _Choice,
    judged: pl.DataFrame,
    scores: Floats,
    prices: Prices,
    params: FitParams,
    tried: int,
) -> Recommendation:
    """judged: images that did not choose; scores: the proxy's, (N,) in their order."""
    confidence, labelled = params.threshold.confidence, has_labels(judged)
    escalated = escalate(scores, choice.threshold)
    rate = float(escalated.mean())
    latency_ms = float(prices.at(np.array([rate]))[0])
    harmful = int((harmed_if_low(judged) & ~escalated).sum())
    high = judged["high_correct"].to_numpy().mean() if labelled else 1.0
    drop = interval_of_difference(losses_if_low(judged) * ~escalated, confidence)
    return Recommendation(
        proxy=proxy,
        threshold=choice.threshold,
        quality="accuracy" if labelled else "agreement",
        escalation_rate=rate,
        calibration_drop=choice.drop,
        drop=drop,
        reached=float(high - drop.value),
        calibration_latency_ms=choice.latency_ms,
        latency_ms=latency_ms,
        speedup=prices.latency_ms["static_high"] / latency_ms,
        harmful=harmful,
        images=len(judged),
        risk_bound=risk_bound(harmful, len(judged), confidence),
        tried=tried,
    )


def confidence_each(confidence: float, tried: int) -> float:
    """What to certify a proxy at, so that `confidence` holds for it though it was chosen among `tried`.

    Bonferroni: the images that certify also chose, so that a proxy looks good partly by their chance.
    """
    return confidence if tried == 1 else 1 - (1 - confidence) / tried


def _order(choice: _Choice, limits: Limits) -> tuple[float, float]:
    """Smallest first: what is asked for is little cost, or, where only that is limited, little loss."""
    cost, loss = choice.latency_ms, choice.drop
    return (cost, loss) if limits.drop is not None else (loss, cost)


def _choose(scores: Floats, losses: Floats, prices: Prices, limits: Limits) -> _Choice | None:
    choices = []
    for threshold in (at_rate(scores, rate) for rate in _RATES):
        low = ~escalate(scores, threshold)
        cost_ms = float(prices.at(np.array([1 - low.mean()]))[0])
        choice = _Choice(cost_ms, float((losses * low).mean()), threshold)
        if _allows(limits, choice):
            choices.append(choice)
    return min(choices, key=lambda choice: _order(choice, limits), default=None)


def _allows(limits: Limits, choice: _Choice) -> bool:
    cheap = limits.latency_ms is None or choice.latency_ms <= limits.latency_ms
    # A share of images that is the limit may be computed as a bit more.
    return cheap and (limits.drop is None or choice.drop <= limits.drop + 1e-9)
