"""Replay the policies on the evaluation images and time them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.cascade import Bench
from pipeline.embeddings import check_images, measure_proxy
from pipeline.files import sha256_of, write_csv, write_json
from pipeline.lineage import check_deltas, check_running
from pipeline.machine import current_commit, read_machine
from pipeline.measure import read_sample
from pipeline.oracles import ORACLES
from pipeline.params.model import ModelParams
from pipeline.params.replay import SCENARIOS, ReplayParams
from pipeline.policy import Policy, decide, proxy_of, score
from pipeline.replay import Expected, Replayed, replay
from pipeline.tables import read_fingerprint, read_table, write_table
from pipeline.timing import WINDOWS
from stages.common import ParamsFile, path_option, stage_command
from stages.progress import progress
from stages.running import read_bench


@stage_command("replay")
@path_option("images", "data/images.parquet", "Table of images.")
@path_option("low", "data/embeddings/low", "Folder of low embeddings; fit's decisions are compared.")
@path_option("deltas", "data/deltas.parquet", "Table of deltas; the oracle's choice is compared.")
@path_option("policy", "models/policy.json", "Policy to replay.")
@path_option("machine", "data/probe/machine.json", "Description of this machine.")
@path_option("table", "data/replay.parquet", "Table of latencies (ms) and answers to write.")
@path_option("metrics", "metrics", "Folder for replay.json and environment.json.")
@path_option("plots", "metrics/plots", "Folder for latency.csv and frontier.csv.")
def main(params: ParamsFile, images: Path, policy: Path, table: Path, **paths: Path) -> None:
    """Time the static policies and adaptive inference, interleaved, against the ideal bound."""
    settings, machine = params.section("replay", ReplayParams), read_machine(paths["machine"])
    bench = read_bench(params, policy, ("low", "mid", "high"), settings.deadline_ms)
    bench.check_policy(policy)
    environment = _environment(bench, params, machine, images)
    check_images(paths["low"], images)
    check_deltas(paths["deltas"], paths["low"])
    check_running(paths["deltas"], environment)
    expected = _expected(bench.policy, paths["low"], paths["deltas"])
    sample = read_sample(images, bench.sizes_px["high"], settings.images)
    if settings.images and settings.images > len(sample.image_ids):
        asked = f"replay.images asks for {settings.images:,}"
        click.echo(f"replay: {asked}, {images} has {len(sample.image_ids):,} to evaluate; all run", err=True)
    total = len(sample.image_ids) * len(settings.scenarios)
    with progress("replay", total, "images") as advance:
        result = replay(bench, sample, expected, settings, advance)
    write_table(table, result.table, _fingerprint(environment, policy))
    write_csv(paths["plots"] / "latency.csv", result.latency)
    write_csv(paths["plots"] / "frontier.csv", result.frontier)
    write_json(paths["metrics"] / "environment.json", environment)
    write_json(paths["metrics"] / "replay.json", result.metrics)
    _print(result)


def _expected(policy: Policy, low: Path, deltas: Path) -> Expected:
    """What fit decides on the stored embeddings, and the oracle of the same images."""
    ids, proxy = measure_proxy(low, proxy_of(policy))
    table = read_table(deltas, ["image_id", "delta", "agree", "low_correct", "high_correct"])
    oracle = ORACLES[policy.oracle](table)
    return Expected(
        dict(zip(ids, decide(policy, proxy).tolist(), strict=True)),
        dict(zip(ids, score(proxy, policy.direction).tolist(), strict=True)),
        dict(zip(table["image_id"].to_pylist(), oracle.tolist(), strict=True)),
    )


def _environment(
    bench: Bench, params: ParamsFile, machine: Mapping[str, Any], images: Path
) -> dict[str, Any]:
    """The conditions that every number of the replay was measured under."""
    runtime = bench.runtime
    return {
        "device": str(runtime.device),
        **machine,
        "threads": runtime.threads,
        "backend": runtime.backend,
        "precision": runtime.precision,
        "low_precision": runtime.low_precision,
        "batch_size": bench.batch_size,
        "sizes_px": dict(bench.sizes_px),
        "weights": params.section("model", ModelParams).weights,
        "weights_sha256": bench.weights.sha256,
        "images_sha256": sha256_of(images),
        "seeds": {
            "images": read_fingerprint(images)["seed"],
            "replay": params.section("replay", ReplayParams).seed,
        },
        "commit": current_commit(Path()),
    }


def _fingerprint(environment: Mapping[str, Any], policy: Path) -> dict[str, Any]:
    made_by = ("weights_sha256", "images_sha256", "sizes_px", "backend", "precision", "low_precision")
    return {
        "kind": "replay",
        "policy_sha256": sha256_of(policy),
        **{name: environment[name] for name in made_by},
    }


def _print(result: Replayed) -> None:
    engine = result.metrics["engine"]
    click.echo(
        f"engine: {100 * engine['decision_agreement']:.2f} % of the decisions are eager float32's; "
        f"largest error {engine['largest_error']:.1e}, tolerance {engine['tolerance']:.0e}"
    )
    if not engine["within_tolerance"]:
        click.echo("Warning: the engine's answers lie further from eager's than its tolerance", err=True)
    for scenario in (name for name in SCENARIOS if name in result.metrics):
        numbers = result.metrics[scenario]
        speedup = numbers["speedup_vs_static_high"]
        click.echo(
            f"{scenario}: speed-up {speedup['median']:.3f} "
            f"[{speedup['ci_low']:.3f}, {speedup['ci_high']:.3f}], "
            f"ideal bound {numbers['speedup_bound']:.3f}, overhead {numbers['overhead_vs_ideal']:.3f}"
        )
        if not numbers.get("within_bound"):
            why = "a measuring error" if "within_bound" in numbers else "too few blocks to tell why"
            click.echo(f"Warning: {scenario} beats the ideal bound: {why}", err=True)
        if not numbers["stable"]:
            told = "did not settle; its timings are marked unstable"
            if numbers["blocks"] < WINDOWS:
                told = "is of too few blocks to tell whether its timings settled"
            click.echo(f"Warning: {scenario} {told}", err=True)


if __name__ == "__main__":
    main()
