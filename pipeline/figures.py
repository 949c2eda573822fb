"""The report's figures: which chart is shown, and what it is said to show."""

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from pipeline import charts
from pipeline.details import is_told
from pipeline.errors import PipelineError
from pipeline.findings import policies_of, scenarios_of
from pipeline.looks import Spec
from pipeline.measured import Document, Metrics
from pipeline.oracles import ORACLES
from pipeline.params.fit import OracleName
from pipeline.policy import is_number


class Figure(NamedTuple):
    key: str
    title: str
    caption: str
    spec: Spec


def _proxy_caption(policy: Document, threshold: float) -> str:
    side = "right" if policy["direction"] == 1 else "left"
    if is_number(threshold):
        line = f"Images {side} of the dashed threshold are escalated."
    else:
        ever = "never" if policy["threshold"] > 0 else "always"
        line = f"The threshold escalates {ever}, so no line is drawn."
    dots = "dots" if policy["oracle"] == "delta" else "dots: means of groups of equal size"
    return f"Evaluation images ({dots}) and the calibration learned on other images (curve). {line}"


def _with_oracle(proxies: pl.DataFrame, deltas: pl.DataFrame, oracle: OracleName) -> pl.DataFrame:
    """The proxies beside what they are meant to predict, whichever oracle that is."""
    points = proxies.select("image_id", "proxy", "expected")
    joined = points.join(deltas, on="image_id", how="inner", validate="1:1", maintain_order="left")
    if joined.height < points.height:
        lost = points.height - joined.height
        raise PipelineError(f"proxy_delta.csv: {lost} of its images have no delta; run fit again")
    return joined.with_columns(oracle=pl.Series(ORACLES[oracle](joined)))


def _draw_deferral(fit: Document, curves: pl.DataFrame) -> Figure:
    point = fit["evaluation"]["escalation_rate"], fit["evaluation"]["agreement"]
    return Figure(
        "deferral",
        "What escalating buys",
        "Agreement with always-high, by share of images escalated (evaluation split). A useful proxy "
        "stays above random; the oracle knows what the proxy has to guess.",
        charts.chart_deferral(curves, point),
    )


def _draw_proxy(policy: Document, deltas: pl.DataFrame, proxies: pl.DataFrame) -> Figure:
    threshold = policy["direction"] * policy["threshold"]
    points = _with_oracle(proxies, deltas, policy["oracle"])
    return Figure(
        "proxy",
        f"Does the proxy predict {policy['oracle']}?",
        _proxy_caption(policy, threshold),
        charts.chart_proxy(points, policy["oracle"], policy["proxy"], threshold),
    )


def _draw_delta(summary: Document | None, histogram: pl.DataFrame) -> Figure:
    return Figure(
        "delta",
        "How far low is from high",
        "Delta of every image: near zero, the low resolution already gives the same embedding.",
        charts.chart_delta(histogram, summary["delta"] if summary else None),
    )


def _draw_latency(percentiles: pl.DataFrame) -> Figure:
    return Figure(
        "latency",
        "How long one image takes",
        "Share of images answered within a time. The adaptive curve's step: escalated images pay twice.",
        charts.chart_latency(percentiles),
    )


def _draw_signals(compared: Document) -> list[Figure]:
    """None where no proxy has a gain, as on very few images."""
    rows = [
        {"oracle": oracle, "proxy": proxy.replace("_", " "), **item["gain_over_random"]}
        for oracle in ORACLES
        for proxy, item in compared.get(oracle, {}).items()
        if item.get("gain_over_random")
    ]
    if not rows:
        return []
    untold = [oracle for oracle in ORACLES if not is_told(compared.get(oracle, {}))]
    few = f" Of {' and '.join(untold)}, images or events are too few to tell." if untold else ""
    figure = Figure(
        "signals",
        "Which signal tells",
        "How much of what the oracle would gain over random escalation each proxy gains (evaluation split). "
        f"What predicts a large delta need not predict where high is right and low is wrong.{few}",
        charts.chart_signals(pl.DataFrame(rows)),
    )
    return [figure]


def _draw_frontier(scenario: Document, frontier: pl.DataFrame) -> Figure:
    quality = "accuracy" if "accuracy_proxy" in frontier.columns else "agreement"
    points = {
        name: (item["latency_ms"]["mean"], item[quality])
        for name, item in policies_of(scenario).items()
        if quality in item
    }
    return Figure(
        "frontier",
        "What a millisecond buys",
        f"{quality.capitalize()} by mean cost, for every threshold, priced from this replay with its "
        "overhead. Dots: thresholds that nothing beats. Random and oracle escalate other images instead.",
        charts.chart_frontier(frontier, quality, points),
    )


def draw_figures(
    policy: Document, metrics: Metrics, deltas: pl.DataFrame, plots: Mapping[str, pl.DataFrame]
) -> list[Figure]:
    """`plots`: the plot data by file name; without a single stream there is no latency of one image."""
    figures = [
        _draw_deferral(metrics.fit, plots["deferral"]),
        _draw_proxy(policy, deltas, plots["proxy_delta"]),
        _draw_delta(metrics.delta, plots["delta_histogram"]),
    ]
    if "latency" in plots and "single_stream" in metrics.replay:
        figures.append(_draw_latency(plots["latency"]))
    figures += _draw_signals(metrics.proxies or {})
    if "frontier" in plots and metrics.replay:
        figures.insert(0, _draw_frontier(next(iter(scenarios_of(metrics).values())), plots["frontier"]))
    return figures
