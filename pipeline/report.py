"""The report: one HTML page that holds its data, charts and code, and asks the network for nothing."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
import vl_convert
from markupsafe import Markup

from pipeline.conditions import list_conditions
from pipeline.details import list_details
from pipeline.figures import draw_figures
from pipeline.files import read_json
from pipeline.findings import (
    RIVALS,
    SCENARIOS,
    describe_engine,
    describe_speed,
    is_at_bound,
    is_stable,
    is_unstable,
    is_within_bound,
    policies_of,
    policy_grid,
    scenarios_of,
    why_beyond_bound,
)
from pipeline.gallery import Picture, load_pictures, pick_extremes
from pipeline.lineage import check_policy
from pipeline.looks import policy_colours
from pipeline.measured import Document, Metrics, read_metrics, require_file
from pipeline.tables import read_table
from pipeline.timing import FEWEST_BLOCKS
from pipeline.verdicts import judge_fit
from pipeline.wording import number, percent, times

DRAW = """
for (const holder of document.querySelectorAll("[data-chart]")) {
  const spec = JSON.parse(document.getElementById(holder.dataset.chart).textContent);
  vegaEmbed(holder, spec, { actions: false, renderer: "svg", ast: true });
}
"""
RANDOM_WEIGHTS = "The weights are random: the times are real, but what the model answers means nothing."
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


def read_report_inputs(
    images: Path, deltas: Path, replay: Path, policy: Path, metrics: Path, gallery_images: int
) -> ReportInputs:
    """Read what the page shows; raises PipelineError naming a missing file and the stage that writes it."""
    for path, stage in ((images, "prepare"), (deltas, "delta"), (policy, "fit"), (replay, "replay")):
        require_file(path, stage)
    check_policy(replay, policy)
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
    bundle = vl_convert.javascript_bundle(DRAW).replace("</script", "<\\/script")
    script = f"\n{bundle}\n"
    page = environment.get_template("report.html.j2").render(
        **_page_values(inputs),
        # Not escaped: it is code alone; the data stand in elements of their own.
        script=Markup(script),
        script_hash=_content_hash(script),
        number=number,
    )
    return page + "\n"


def _page_values(inputs: ReportInputs) -> dict[str, Any]:
    metrics = inputs.metrics
    scenarios = scenarios_of(metrics)
    sentences = [_headline(name, scenario) for name, scenario in scenarios.items()]
    if metrics.environment.get("weights") == "random":
        sentences.append(RANDOM_WEIGHTS)
    return {
        "headline": sentences[0] if sentences else "No scenario was replayed.",
        "more": sentences[1:],
        "verdicts": judge_fit(metrics.fit),
        "engine": describe_engine(metrics.replay.get("engine")),
        "scenarios": [_scenario_values(name, scenario) for name, scenario in scenarios.items()],
        "figures": draw_figures(inputs.policy, metrics, inputs.deltas, inputs.plots),
        "galleries": [
            ("Largest delta: high resolution changes these most", inputs.largest),
            ("Smallest delta: low resolution sees the same", inputs.smallest),
        ],
        "details": list(list_details(metrics)),
        "conditions": list_conditions(metrics),
    }


def _headline(name: str, scenario: Document) -> str:
    """What was found, in one sentence; never a success where the timing does not bear it."""
    where = "One image at a time" if name == "single_stream" else "In full batches"
    speedup, adaptive = scenario.get("speedup_vs_static_high"), policies_of(scenario).get("adaptive")
    if speedup is None or adaptive is None:
        return f"{where}, no adaptive policy was compared."
    if not is_within_bound(scenario):
        why = why_beyond_bound(scenario)
        return f"{where}, no speed-up can be reported: the times beat the ideal bound: {why}."
    ratio = times(speedup.get("median"))
    if is_unstable(scenario):
        return f"{where}, the timing did not settle; the speed-up of {ratio} is not to be relied on."
    if _is_short(scenario):
        return f"{where}, the speed-up of {ratio} is of {scenario['blocks']} blocks, too few to be relied on."
    if speedup["ci_low"] > 1:
        found = f"adaptive inference is {ratio} as fast as always using the high resolution"
    elif speedup["ci_high"] < 1:
        found = f"adaptive inference is slower than always using the high resolution ({ratio})"
    else:
        interval = f"{times(speedup['ci_low'])} to {times(speedup['ci_high'])}"
        found = (
            "adaptive inference cannot be told to be faster or slower than always using the high resolution "
            f"({ratio}, interval {interval})"
        )
    return (
        f"{where}, {found}, and gives the same answer for {percent(adaptive.get('agreement'))} of the images."
    )


def _is_short(scenario: Document) -> bool:
    return bool(scenario.get("blocks", FEWEST_BLOCKS) < FEWEST_BLOCKS)


def _scenario_values(name: str, scenario: Document) -> dict[str, Any]:
    adaptive = policies_of(scenario).get("adaptive", {})
    speedup = scenario.get("speedup_vs_static_high", {})
    shown, note = times(speedup.get("median")), "over static high"
    if not is_within_bound(scenario):
        shown, note = "none", f"beats the ideal bound: {why_beyond_bound(scenario)}"
    elif is_unstable(scenario):
        note = "over static high; UNSTABLE"
    elif _is_short(scenario):
        note = "over static high; of too few blocks"
    return {
        "title": SCENARIOS[name],
        "size": f"{number(scenario.get('images'), 0)} images, {number(scenario.get('blocks'), 0)} blocks",
        "grid": policy_grid(scenario),
        "colours": policy_colours([*policies_of(scenario), *(name for name in RIVALS if name in scenario)]),
        "notes": describe_speed(scenario),
        "trusted": is_within_bound(scenario) and is_stable(scenario) and not _is_short(scenario),
        "tiles": [
            ("speed-up", shown, note),
            ("ideal bound", times(scenario.get("speedup_bound")), _bound_note(scenario)),
            ("agreement", percent(adaptive.get("agreement")), "same top-1 as static high"),
            ("escalated", percent(adaptive.get("escalation_rate")), "of the images ran high as well"),
        ],
    }


def _bound_note(scenario: Document) -> str:
    return "reached, to measuring error" if is_at_bound(scenario) else "no speed-up can exceed it"


def _read_frame(path: Path, columns: list[str]) -> pl.DataFrame:
    frame = pl.from_arrow(read_table(path, columns))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _read_escalated(replay: Path) -> dict[str, bool]:
    rows = _read_frame(replay, ["image_id", "policy", "escalated"]).filter(pl.col("policy") == "adaptive")
    return dict(zip(rows["image_id"], rows["escalated"], strict=True))


def _read_plots(folder: Path) -> dict[str, pl.DataFrame]:
    writers = {"delta_histogram": "delta", "proxy_delta": "fit", "deferral": "fit"}
    plots = {
        name: pl.read_csv(require_file(folder / f"{name}.csv", stage)) for name, stage in writers.items()
    }
    optional = {name: folder / f"{name}.csv" for name in ("latency", "frontier")}
    return plots | {name: pl.read_csv(path) for name, path in optional.items() if path.is_file()}


def _content_hash(script: str) -> str:
    """For the page's content security policy: only a script with this content may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
