"""Cost of one forward pass per role, without data."""

from pathlib import Path

import click

from pipeline.checkpoint import load_weights
from pipeline.files import write_json
from pipeline.machine import name_processor, read_machine
from pipeline.params.model import ModelParams, ResolutionParams
from pipeline.params.replay import ReplayParams
from pipeline.params.runtime import RuntimeParams
from pipeline.profile import profile_roles
from pipeline.runtime import resolve_runtime
from stages.common import ParamsFile, path_option, stage_command


@stage_command("runtime")
@path_option("machine", "data/probe/machine.json", "Description of this machine.")
@path_option("metrics", "metrics/profile.json", "Metrics to write: ms, GFLOP, parameters, MB.")
@click.option(
    "--runs", type=click.IntRange(30), default=100, show_default=True, help="Timed passes per role."
)
def main(params: ParamsFile, machine: Path, metrics: Path, runs: int) -> None:
    """Measure the forward pass alone, one image at a time and in batches: time, FLOPs, parameters, memory."""
    here = read_machine(machine)
    sizes = params.section("resolutions", ResolutionParams)
    within = params.section("replay", ReplayParams).stable_within
    options = params.section("runtime", RuntimeParams)
    weights = load_weights(params.section("model", ModelParams), sizes.high)
    runtime = resolve_runtime(options, weights.architecture)
    roles = sizes.by_role()
    costs = profile_roles(weights, roles, runtime, options.batch_size, runs, within)
    conditions = {
        "device": str(runtime.device),
        "backend": runtime.backend,
        "precision": runtime.precision,
        "low_precision": runtime.low_precision,
        "threads": runtime.threads,
        "weights_sha256": weights.sha256,
        **name_processor(here),
    }
    write_json(metrics, costs | conditions)
    for role in roles:
        cost = costs[role]
        note = "" if cost["stable"] else "; NOT stable, leave the machine alone and repeat"
        click.echo(f"{role}: {cost['latency_ms']['p50']:.2f} ms, {cost['gflops']:.3f} GFLOP{note}")


if __name__ == "__main__":
    main()
