"""`adaptive-vit recommend`: which threshold keeps to a limit on accuracy or on latency."""

from pathlib import Path

import click

from pipeline.advice import describe_recommendation, document_recommendation, find_mid, refuse
from pipeline.candidates import prices_of, read_candidates, read_scenario
from pipeline.findings import is_stable, is_within_bound
from pipeline.learned import NAME
from pipeline.lineage import check_replayed
from pipeline.mid import read_mid
from pipeline.params.fit import FitParams
from pipeline.params.replay import SCENARIOS, Scenario
from pipeline.policy import read_policy
from pipeline.proxies import PROXIES
from pipeline.recommend import Limits, recommend
from stages.common import ParamsFile, path_option, stage_command
from stages.printing import echo_json, json_option

ANY = "any"


@stage_command("fit")
@click.option("--max-accuracy-drop", type=click.FloatRange(0), help="Percentage points below always-high.")
@click.option("--max-latency-ms", type=click.FloatRange(0, min_open=True), help="Mean per image.")
@click.option(
    "--proxy",
    type=click.Choice([*PROXIES, NAME, ANY]),
    help=f"Whose threshold; {ANY}: of whichever does best on the calibration images. [default: the policy's]",
)
@click.option(
    "--scenario",
    type=click.Choice(SCENARIOS),
    default=SCENARIOS[0],
    show_default=True,
    help="Whose measured costs.",
)
@json_option
@path_option("low", "data/embeddings/low", "Folder of the low embeddings.")
@path_option("deltas", "data/deltas.parquet", "Table of deltas.")
@path_option("images", "data/images.parquet", "Table of images: the classes that static mid is judged by.")
@path_option("policy", "models/policy.json", "Policy whose proxy is used where none is named.")
@path_option("replay", "metrics/replay.json", "Measured costs.")
@path_option("environment", "metrics/environment.json", "What they were measured with (JSON).")
@path_option("answers", "data/replay.parquet", "Answers of the replay: static mid's.")
def main(
    params: ParamsFile,
    max_accuracy_drop: float | None,
    max_latency_ms: float | None,
    proxy: str | None,
    scenario: Scenario,
    as_json: bool,
    low: Path,
    deltas: Path,
    **paths: Path,
) -> None:
    """Name a threshold, what it costs and loses, its certificate, and the command that sets it.

    It is chosen on the calibration images (from which `learned` also learned, so it flatters itself there);
    what is said of it comes from the evaluation images. Where the weights know no classes, agreement with
    always-high stands for accuracy.
    """
    if max_accuracy_drop is None and max_latency_ms is None:
        raise click.UsageError("name a limit: --max-accuracy-drop POINTS, --max-latency-ms MS, or both")
    settings = params.section("fit", FitParams)
    measured = read_scenario(paths["replay"], scenario)
    check_replayed(deltas, paths["environment"])
    names = [*PROXIES, NAME] if proxy == ANY else [proxy or read_policy(paths["policy"]).proxy]
    candidates = read_candidates(low, deltas, settings, names)
    limits = Limits(None if max_accuracy_drop is None else max_accuracy_drop / 100, max_latency_ms)
    found = recommend(candidates.samples, candidates.scores, prices_of(measured), limits, settings)
    if found is None:
        raise refuse(names, measured, ANY)
    mid = None
    if "static_mid" in measured:
        marked = read_mid(candidates.samples, paths["answers"], scenario, paths["images"], deltas)
        mid = find_mid(marked, candidates.scores[found.proxy], found.threshold, measured, settings)
    direction = candidates.policies[found.proxy].direction
    confidence, stable = settings.threshold.confidence, is_stable(measured) and is_within_bound(measured)
    if as_json:
        echo_json(document_recommendation(found, direction, scenario, confidence, mid, stable))
    else:
        lines = describe_recommendation(found, direction, scenario, confidence, limits, mid, stable)
        click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
