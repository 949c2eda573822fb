"""Replay the policies on the evaluation images and time them."""

from pathlib import Path
from typing import Any

import click

from pipeline.cascade import Bench
from pipeline.embeddings import measure_proxy
from pipeline.engine import TRANSFORM
from pipeline.files import read_json, sha256_of, write_csv, write_json
from pipeline.machine import current_commit
from pipeline.measure import read_sample
from pipeline.params.model import ModelParams, ResolutionParams
from pipeline.params.replay import ReplayParams
from pipeline.params.runtime import RuntimeParams
from pipeline.policy import check_made_for, decide, read_policy
from pipeline.replay import Replayed, replay
from pipeline.runtime import resolve_runtime
from pipeline.tables import write_table
from pipeline.vit import load_weights
from stages.common import ParamsFile, path_option, stage_command
from stages.progress import progress


@stage_command("replay")
@path_option("images", "data/images.parquet", "Table of images.")
@path_option("low", "data/embeddings/low", "Folder of low embeddings; fit's decisions are compared.")
@path_option("policy", "models/policy.json", "Policy to replay.")
@path_option("machine", "data/probe/machine.json", "Description of this machine.")
@path_option("table", "data/replay.parquet", "Table of latencies (ms) and answers to write.")
@path_option("metrics", "metrics", "Folder for replay.json and environment.json.")
@path_option("plots", "metrics/plots", "Folder for latency.csv.")
def main(params: ParamsFile, images: Path, low: Path, policy: Path, table: Path, **paths: Path) -> None:
    """Time static low, static high and adaptive inference, interleaved, against the ideal bound."""
    settings = params.section("replay", ReplayParams)
    bench = _bench(params, policy)
    ids, proxy = measure_proxy(low, bench.policy.proxy)
    fitted = dict(zip(ids, decide(bench.policy, proxy).tolist(), strict=True))
    sample = read_sample(images, bench.sizes_px["high"], settings.images)
    total = len(sample.image_ids) * len(settings.scenarios)
    with progress("replay", total, "images") as advance:
        result = replay(bench, sample, fitted, settings, advance)
    write_table(table, result.table, {"kind": "replay", "policy_sha256": sha256_of(policy)})
    write_csv(paths["plots"] / "latency.csv", result.latency)
    write_json(paths["metrics"] / "environment.json", _environment(bench, params, paths["machine"]))
    write_json(paths["metrics"] / "replay.json", result.metrics)
    _print(result)


def _bench(params: ParamsFile, policy: Path) -> Bench:
    """The model under the run's settings, with a policy that was fitted under the same ones."""
    options = params.section("runtime", RuntimeParams)
    sizes = params.section("resolutions", ResolutionParams)
    runtime = resolve_runtime(options)
    weights = load_weights(params.section("model", ModelParams), sizes.high)
    bench = Bench(weights, sizes.model_dump(), runtime, read_policy(policy), options.batch_size)
    running = {
        "weights_sha256": weights.sha256,
        "transform": TRANSFORM,
        "precision": runtime.precision,
        "backend": runtime.backend,
        "low_px": sizes.low,
        "high_px": sizes.high,
    }
    check_made_for(bench.policy, running)
    return bench


def _environment(bench: Bench, params: ParamsFile, machine: Path) -> dict[str, Any]:
    """The conditions that every number of the replay was measured under."""
    runtime = bench.runtime
    return {
        "device": str(runtime.device),
        **read_json(machine),
        "threads": runtime.threads,
        "backend": runtime.backend,
        "precision": runtime.precision,
        "batch_size": bench.batch_size,
        "sizes_px": dict(bench.sizes_px),
        "weights": params.section("model", ModelParams).weights,
        "weights_sha256": bench.weights.sha256,
        "commit": current_commit(Path()),
    }


def _print(result: Replayed) -> None:
    for scenario, numbers in result.metrics.items():
        speedup = numbers["speedup_vs_static_high"]
        click.echo(
            f"{scenario}: speed-up {speedup['median']:.3f} "
            f"[{speedup['ci_low']:.3f}, {speedup['ci_high']:.3f}], "
            f"ideal bound {numbers['speedup_bound']:.3f}, overhead {numbers['overhead_vs_ideal']:.3f}"
        )
        if not numbers["within_bound"]:
            click.echo(f"Warning: {scenario} beats the ideal bound: a measuring error", err=True)
        if not numbers["stable"]:
            click.echo(f"Warning: {scenario} did not settle; its timings are marked unstable", err=True)


if __name__ == "__main__":
    main()
