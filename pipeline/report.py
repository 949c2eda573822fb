"""The report: one HTML page that holds its data, its charts and their code, and asks the network for nothing."""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import polars as pl
import vl_convert
from markupsafe import Markup

from pipeline import charts
from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.findings import (
    DASH,
    MEASURING_ERROR,
    SCENARIOS,
    Document,
    Grid,
    Metrics,
    describe_agreement,
    describe_fit,
    describe_speed,
    is_stable,
    is_within_bound,
    list_conditions,
    milliseconds,
    number,
    percent,
    policies_of,
    policy_grid,
    read_metrics,
    require_file,
    scenarios_of,
    times,
)
from pipeline.gallery import Picture, load_pictures, pick_extremes
from pipeline.oracles import ORACLES
from pipeline.tables import read_table

DRAW = """
for (const holder of document.querySelectorAll("[data-chart]")) {
  const spec = JSON.parse(document.getElementById(holder.dataset.chart).textContent);
  vegaEmbed(holder, spec, { actions: false, renderer: "svg", ast: true });
}
"""
_DELTA_COLUMNS = ["image_id", "delta", "agree", "low_correct", "high_correct"]


@dataclass(frozen=True)
class ReportInputs:
    """plots: the plot data by name; latency is missing where no single stream was replayed."""

    metrics: Metrics
    policy: Document
    deltas: pl.DataFrame
    plots: dict[str, pl.DataFrame]
    largest: list[Picture]
    smallest: list[Picture]


class Figure(NamedTuple):
    key: str
    title: str
    caption: str
    spec: charts.Spec


def read_report_inputs(
    images: Path, deltas: Path, replay: Path, policy: Path, metrics: Path, gallery_images: int
) -> ReportInputs:
    """Read what the page shows; raises PipelineError naming a missing file and the stage that writes it."""
    for path, stage in ((images, "prepare"), (deltas, "delta"), (policy, "fit"), (replay, "replay")):
        require_file(path, stage)
    measured = _read_frame(deltas, _DELTA_COLUMNS)
    escalated = _read_escalated(replay)
    largest, smallest = pick_extremes(measured, gallery_images)
    return ReportInputs(
        metrics=read_metrics(metrics),
        policy=read_json(policy),
        deltas=measured,
        plots=_read_plots(metrics / "plots"),
        largest=load_pictures(images, largest, escalated),
        smallest=load_pictures(images, smallest, escalated),
    )


def render_report(inputs: ReportInputs) -> str:
    """The page as HTML; the same inputs give the same text."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # A closing tag inside a string of the bundle would end the script element; the escape means the same.
    bundle = vl_convert.javascript_bundle().replace("</script", "<\\/script")
    scripts = (f"\n{bundle}\n", DRAW)
    page = environment.get_template("report.html.j2").render(
        **_page_values(inputs),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - the bundle, and the lines above
        script_hashes=[_content_hash(script) for script in scripts],
        number=number,
    )
    return page + "\n"


def _page_values(inputs: ReportInputs) -> dict[str, Any]:
    metrics = inputs.metrics
    scenarios = scenarios_of(metrics)
    sentences = [_headline(name, scenario) for name, scenario in scenarios.items()]
    return {
        "headline": sentences[0] if sentences else "No scenario was replayed.",
        "more": sentences[1:],
        "verdict": describe_fit(metrics.fit),
        "verdict_holds": metrics.fit.get("beats_random") == 1,
        "agreement": describe_agreement(metrics.fit),
        "scenarios": [_scenario_values(name, scenario) for name, scenario in scenarios.items()],
        "figures": _draw_figures(inputs),
        "galleries": [
            ("Largest delta: high resolution changes these most", inputs.largest),
            ("Smallest delta: low resolution sees the same", inputs.smallest),
        ],
        "details": list(_detail_grids(metrics)),
        "conditions": list_conditions(metrics),
    }


def _headline(name: str, scenario: Document) -> str:
    """What was found, in one sentence; never a success where the timing does not bear it."""
    where = "One image at a time" if name == "single_stream" else "In full batches"
    speedup, adaptive = scenario.get("speedup_vs_static_high"), policies_of(scenario).get("adaptive")
    if speedup is None or adaptive is None:
        return f"{where}, no adaptive policy was compared."
    if not is_within_bound(scenario):
        return f"{where}, no speed-up can be reported: {MEASURING_ERROR}."
    ratio = times(speedup.get("median"))
    if not is_stable(scenario):
        return f"{where}, the timing did not settle; the speed-up of {ratio} is not to be relied on."
    if speedup["ci_low"] > 1:
        found = f"adaptive inference is {ratio} as fast as always using the high resolution"
    elif speedup["ci_high"] < 1:
        found = f"adaptive inference is slower than always using the high resolution ({ratio})"
    else:
        found = f"adaptive inference is no faster than always using the high resolution ({ratio})"
    return f"{where}, {found}, and gives the same answer for {percent(adaptive.get('agreement'))} of the images."


def _scenario_values(name: str, scenario: Document) -> dict[str, Any]:
    adaptive = policies_of(scenario).get("adaptive", {})
    speedup = scenario.get("speedup_vs_static_high", {})
    shown = times(speedup.get("median")) if is_within_bound(scenario) else "none"
    return {
        "title": SCENARIOS[name],
        "size": f"{number(scenario.get('images'), 0)} images, {number(scenario.get('blocks'), 0)} blocks",
        "grid": policy_grid(scenario),
        "colours": charts.policy_colours(list(policies_of(scenario))),
        "notes": describe_speed(scenario),
        "trusted": is_within_bound(scenario) and is_stable(scenario),
        "tiles": [
            ("speed-up", shown, "over static high" if is_within_bound(scenario) else MEASURING_ERROR),
            ("ideal bound", times(scenario.get("speedup_bound")), "no speed-up can exceed it"),
            ("agreement", percent(adaptive.get("agreement")), "same top-1 as static high"),
            ("escalated", percent(adaptive.get("escalation_rate")), "of the images ran high as well"),
        ],
    }


def _draw_figures(inputs: ReportInputs) -> list[Figure]:
    oracle, evaluation = inputs.policy["oracle"], inputs.metrics.fit["evaluation"]
    summary = inputs.metrics.delta
    threshold = inputs.policy["direction"] * inputs.policy["threshold"]
    figures = [
        Figure(
            "deferral",
            "What escalating buys",
            "Agreement with always-high, by share of images escalated (evaluation split). A useful proxy "
            "stays above random; the oracle, which knows the answer, is the best any proxy could do.",
            charts.chart_deferral(
                inputs.plots["deferral"], (evaluation["escalation_rate"], evaluation["agreement"])
            ),
        ),
        Figure(
            "proxy",
            f"Does the proxy predict {oracle}?",
            _proxy_caption(inputs.policy, threshold),
            charts.chart_proxy(_with_oracle(inputs), oracle, inputs.policy["proxy"], threshold),
        ),
        Figure(
            "delta",
            "How far low is from high",
            "Delta of every image: near zero, the low resolution already gives the same embedding.",
            charts.chart_delta(inputs.plots["delta_histogram"], summary["delta"] if summary else None),
        ),
    ]
    if "latency" in inputs.plots and "single_stream" in inputs.metrics.replay:
        caption = "Share of images answered within a time. The adaptive step is the escalated images: they pay twice."
        figures.append(
            Figure("latency", "How long one image takes", caption, charts.chart_latency(inputs.plots["latency"]))
        )
    return figures


def _proxy_caption(policy: Document, threshold: float) -> str:
    side = "right" if policy["direction"] == 1 else "left"
    if charts.is_number(threshold):
        line = f"Images {side} of the dashed threshold are escalated."
    else:
        line = f"The threshold escalates {'never' if policy['threshold'] > 0 else 'always'}, so no line is drawn."
    return f"Evaluation images (dots) and the calibration learned on other images (curve). {line}"


def _with_oracle(inputs: ReportInputs) -> pl.DataFrame:
    """The proxies beside what they are meant to predict, whichever oracle that is."""
    points = inputs.plots["proxy_delta"].select("image_id", "proxy", "expected")
    joined = points.join(inputs.deltas, on="image_id", how="inner", validate="1:1", maintain_order="left")
    if joined.height < points.height:
        raise PipelineError(f"proxy_delta.csv: {points.height - joined.height} images have no delta; run fit again")
    return joined.with_columns(oracle=pl.Series(ORACLES[inputs.policy["oracle"]](joined)))


def _detail_grids(metrics: Metrics) -> Iterable[tuple[str, Grid]]:
    if metrics.delta:
        yield "Low against high", _delta_grid(metrics.delta)
    if metrics.profile:
        yield "Cost of a forward pass", _profile_grid(metrics.profile)
    if metrics.extract:
        yield "Extraction", _extract_grid(metrics)
    if metrics.prepare:
        counts = {**metrics.prepare.get("images", {}), "classes": metrics.prepare.get("classes")}
        yield "Images", Grid(("count", "number"), tuple((key, number(counts[key], 0)) for key in counts))


def _delta_grid(summary: Document) -> Grid:
    accuracy, delta = summary.get("accuracy", {}), summary["delta"]
    rows = [(f"delta {key}", number(delta[key], 3)) for key in delta]
    rows += [("agreement of low with high", percent(summary.get("agreement")))]
    rows += [(f"accuracy {role}", percent(accuracy.get(role))) for role in ("low", "high")]
    rows += [(f"{key} rate", percent(summary.get(f"{key}_rate"))) for key in ("benefit", "breakage")]
    return Grid(("measure", "value"), tuple(rows))


def _profile_grid(profile: Document) -> Grid:
    header = ("role", "size px", "tokens", "p50 ms", "p90 ms", "GFLOPs", "parameters", "peak MB")
    rows = [
        (
            role,
            number(cost.get("size_px"), 0),
            number(cost.get("tokens"), 0),
            milliseconds(cost["latency_ms"].get("p50")),
            milliseconds(cost["latency_ms"].get("p90")),
            number(cost.get("gflops")),
            number(cost.get("parameters"), 0),
            number(cost.get("peak_memory_mb"), 0),
        )
        for role in ("low", "high")
        if (cost := profile.get(role))
    ]
    ratios = times(profile.get("latency_ratio")), times(profile.get("flops_ratio"))
    rows.append(("high / low", DASH, DASH, ratios[0], DASH, ratios[1], DASH, DASH))
    return Grid(header, tuple(rows))


def _extract_grid(metrics: Metrics) -> Grid:
    steps = ("reader", "forward", "writer", "total")
    header = ("role", "images", *(f"{step} images/s" for step in steps), "wall s", "peak MB", "batch", "resumed")
    rows = [
        (
            role,
            number(run.get("images"), 0),
            *(number(run.get(step, {}).get("images_per_s"), 0) for step in steps),
            number(run.get("total", {}).get("wall_s"), 1),
            *(number(run.get(key), 0) for key in ("peak_memory_mb", "batch_size", "resumed_images")),
        )
        for role, run in metrics.extract.items()
    ]
    return Grid(header, tuple(rows))


def _read_frame(path: Path, columns: list[str]) -> pl.DataFrame:
    frame = pl.from_arrow(read_table(path, columns))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _read_escalated(replay: Path) -> dict[str, bool]:
    rows = _read_frame(replay, ["image_id", "policy", "escalated"]).filter(pl.col("policy") == "adaptive")
    return dict(zip(rows["image_id"], rows["escalated"], strict=True))


def _read_plots(folder: Path) -> dict[str, pl.DataFrame]:
    writers = {"delta_histogram": "delta", "proxy_delta": "fit", "deferral": "fit"}
    plots = {name: pl.read_csv(require_file(folder / f"{name}.csv", stage)) for name, stage in writers.items()}
    latency = folder / "latency.csv"
    return plots | ({"latency": pl.read_csv(latency)} if latency.is_file() else {})


def _content_hash(script: str) -> str:
    """For the page's content security policy: only scripts with these contents may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
