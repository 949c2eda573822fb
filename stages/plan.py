"""`adaptive-vit plan`: does adaptive inference pay on this machine, and at which escalation rates?"""

from pathlib import Path
from typing import Any

import click

from pipeline.conditions import describe_precision
from pipeline.costs import UNSTABLE, are_stable, check_costs
from pipeline.files import read_json
from pipeline.machine import describe_machine
from pipeline.measure import read_sample
from pipeline.params.replay import ReplayParams
from pipeline.plan import RATES, BatchCosts, Point, break_even_rate, read_batch_costs, replay_rates
from pipeline.timing import WINDOWS
from pipeline.wording import milliseconds
from stages.common import ParamsFile, path_option, stage_command
from stages.printing import echo_json, json_option
from stages.progress import progress
from stages.running import read_bench


@stage_command("replay")
@path_option("images", "data/images.parquet", "Table of images.")
@path_option("policy", "models/policy.json", "Policy whose proxy and direction are used.")
@path_option("profile", "metrics/profile.json", "Measured costs, of adaptive-vit profile.")
@click.option(
    "--count", type=click.IntRange(20), default=400, show_default=True, help="Images to replay per rate."
)
@json_option
def main(params: ParamsFile, images: Path, policy: Path, profile: Path, count: int, as_json: bool) -> None:
    """Predict the speed-up from the costs of the passes, and replay it, for a range of escalation rates."""
    settings = params.section("replay", ReplayParams)
    bench = read_bench(params, policy, ("low", "high"), settings.deadline_ms)
    runtime = bench.runtime
    found, machine = read_json(profile), describe_machine()
    running = {
        "backend": runtime.backend,
        "precision": runtime.precision,
        "low_precision": runtime.low_precision,
        "threads": runtime.threads,
        "weights_sha256": bench.weights.sha256,
    }
    check_costs(found, running, machine, bench.sizes_px, profile)
    if not are_stable(found):
        click.echo(f"Warning: {profile}: {UNSTABLE}", err=True)
    bench.check_policy(policy)
    sample = read_sample(images, bench.sizes_px["high"], count)
    documents = {}
    for scenario in settings.scenarios:
        costs = read_batch_costs(found, scenario)
        with progress(f"plan {scenario}", len(sample.image_ids) * len(RATES), "images") as advance:
            points = replay_rates(bench, sample, scenario, costs, settings, advance)
        documents[scenario] = _document(costs, points)
        if not as_json:
            title = f"{scenario}, {runtime.backend}, {describe_precision(running)}:"
            block = settings.offline_block if scenario == "offline" else settings.single_stream_block
            lines = _lines(costs, points, _advise(len(sample.image_ids), count, WINDOWS * block))
            click.echo("\n".join([title, *lines]))
    if as_json:
        echo_json(running | documents)


def _document(costs: BatchCosts, points: list[Point]) -> dict[str, Any]:
    rates = [point._asdict() for point in points]
    return {
        "costs": costs._asdict(),
        "break_even_rate": break_even_rate(costs),
        "pays": int(_pays(points)),
        "rates": rates,
    }


def _pays(points: list[Point]) -> bool:
    """Whether any of the rates, but for none at all, which is static low, is faster than always-high."""
    return any(point.reached > 0 and point.replayed > 1 for point in points)


def _advise(images: int, asked: int, fewest: int) -> str:
    """For where images are too few to tell whether the replay was stable."""
    if images < asked:
        return f"draw {fewest} or more with data.evaluation_images"
    return f"use --count {fewest} or more"


def _lines(costs: BatchCosts, points: list[Point], advice: str) -> list[str]:
    """advice: for where it cannot be told whether the replay was stable."""
    low, high = (
        f"{milliseconds(costs.low_ms)} ms (batch {costs.low_batch})",
        f"{milliseconds(costs.high_ms)} ms (batch {costs.high_batch})",
    )
    lines = [f"  one image costs {low} at low, {high} at high", "  escalated   reached  predicted  replayed"]
    lines += [
        f"  {point.rate:9.1%} {point.reached:9.1%} {point.predicted:9.2f}× {point.replayed:8.2f}×"
        for point in points
    ]
    rate = break_even_rate(costs)
    lines.append(f"  Break-even: {rate:.1%} escalated; beyond it always-high is faster.")
    if not _pays(points):
        lines.append("  Adaptive inference does NOT pay on this machine: no rate is faster than always-high.")
    if any(point.stable is None for point in points):
        lines.append(f"  Whether it was stable is not known, of so few images: {advice}.")
    if unstable := [f"{point.rate:.1%}" for point in points if point.stable is False]:
        lines.append(f"  NOT stable, leave the machine alone and repeat: {', '.join(unstable)} escalated.")
    return lines


if __name__ == "__main__":
    main()
