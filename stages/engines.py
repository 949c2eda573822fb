"""`adaptive-vit engines`: what this machine can run a model on, and how fast."""

from dataclasses import replace

import click
import numpy as np

from pipeline.backends import BACKENDS, why_not
from pipeline.checkpoint import load_weights
from pipeline.engines.base import Spec
from pipeline.params.model import ModelParams, ResolutionParams, Role
from pipeline.params.replay import ReplayParams
from pipeline.params.runtime import Precision, RuntimeParams
from pipeline.profile import time_single
from pipeline.proxies import cls_change
from pipeline.runtime import Runtime, resolve_runtime
from pipeline.vit import Weights
from stages.common import ParamsFile, stage_command

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")


@stage_command("runtime")
@click.option("--runs", type=click.IntRange(30), default=50, show_default=True, help="Timed passes per role.")
@click.option("--skip", multiple=True, type=click.Choice(BACKENDS), help="Leave a backend out. Repeatable.")
def main(params: ParamsFile, runs: int, skip: tuple[str, ...]) -> None:
    """List the engines of this machine with their median latency per role, and what the others lack."""
    sizes = params.section("resolutions", ResolutionParams).by_role()
    within = params.section("replay", ReplayParams).stable_within
    weights = load_weights(params.section("model", ModelParams), sizes["high"])
    whole = resolve_runtime(params.section("runtime", RuntimeParams), weights.architecture)
    chosen, low = whole.of("high"), whole.of("low")
    columns = "".join(f"{f'{role} ms':>10}" for role in sizes)
    click.echo(f"{'engine':<10}{'precision':<10}{columns}   on {chosen.device}, {chosen.threads} threads")
    for backend in (name for name in BACKENDS if name not in skip):
        for precision in PRECISIONS:
            runtime = replace(chosen, backend=backend, precision=precision)
            mark = {low: "   <- runtime, low", chosen: "   <- runtime"}.get(runtime, "")
            reason = why_not(backend, chosen.device, precision, weights.architecture)
            shown = (
                f"   not available: {reason}" if reason else _measure(weights, sizes, runtime, runs, within)
            )
            click.echo(f"{backend:<10}{precision:<10}{shown}{mark}")


def _measure(weights: Weights, sizes_px: dict[Role, int], runtime: Runtime, runs: int, within: float) -> str:
    specs = {
        role: Spec(weights, sizes_px["high"], size_px, runtime, cls_change)
        for role, size_px in sizes_px.items()
    }
    latency_ms = time_single(specs, runs, within)
    return "".join(f"{np.median(latency_ms[role]):>10.2f}" for role in specs)


if __name__ == "__main__":
    main()
