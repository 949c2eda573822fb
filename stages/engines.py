"""`adaptive-vit engines`: what this machine can run a model on, and how fast."""

from dataclasses import replace
from typing import NamedTuple

import click
import numpy as np

from pipeline.backends import BACKENDS, why_not
from pipeline.checkpoint import load_weights
from pipeline.engines.base import Spec
from pipeline.errors import PipelineError
from pipeline.params.model import ModelParams, ResolutionParams, Role
from pipeline.params.replay import ReplayParams
from pipeline.params.runtime import Precision, RuntimeParams
from pipeline.profile import time_single
from pipeline.proxies import cls_change
from pipeline.runtime import Runtime, resolve_runtime
from pipeline.vit import Weights
from stages.common import ParamsFile, stage_command
from stages.printing import echo_json, json_option

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")


@stage_command("runtime")
@click.option("--runs", type=click.IntRange(30), default=50, show_default=True, help="Timed passes per role.")
@click.option("--skip", multiple=True, type=click.Choice(BACKENDS), help="Leave a backend out. Repeatable.")
@json_option
def main(params: ParamsFile, runs: int, skip: tuple[str, ...], as_json: bool) -> None:
    """List the engines of this machine with their median latency per role, and what the others lack."""
    sizes = params.section("resolutions", ResolutionParams).by_role()
    within = params.section("replay", ReplayParams).stable_within
    weights = load_weights(params.section("model", ModelParams), sizes["high"])
    whole, lacking = _resolve(params.section("runtime", RuntimeParams), weights)
    chosen = whole.of("high")
    if not as_json:
        columns = "".join(f"{f'{role} ms':>10}" for role in sizes)
        click.echo(f"{'engine':<10}{'precision':<10}{columns}   on {chosen.device}, {chosen.threads} threads")
    entries = []
    for backend in (name for name in BACKENDS if name not in skip):
        for precision in PRECISIONS:
            runtime = replace(chosen, backend=backend, precision=precision)
            roles = [role for role in sizes if whole.of(role) == runtime and not lacking]
            lacks = why_not(backend, chosen.device, precision, weights.architecture)
            entry = _Entry(backend, precision, roles, lacks)
            if not lacks:
                entry = entry._replace(latency_ms=_measure(weights, sizes, runtime, runs, within))
            entries.append(entry)
            if not as_json:
                click.echo(_line(entry))
    if as_json:
        engines = [entry._asdict() for entry in entries]
        found = {"device": str(chosen.device), "threads": chosen.threads, "engines": engines}
        echo_json(found | ({"runtime_lacks": lacking} if lacking else {}))
    elif lacking:
        click.echo(f"What the parameters ask for cannot run here: {lacking}", err=True)


def _resolve(options: RuntimeParams, weights: Weights) -> tuple[Runtime, str]:
    """What the parameters ask for; where that cannot run here, what can, and what keeps the other from it."""
    lacking = ""
    for freed in ({}, {"backend": "auto", "precision": "float32", "low_precision": None}):
        try:
            return resolve_runtime(options.model_copy(update=freed), weights.architecture), lacking
        except PipelineError as error:
            lacking = lacking or str(error)
    raise PipelineError(lacking)  # The device itself, which lists are of.


class _Entry(NamedTuple):
    """roles: that `runtime` gives it. lacks: what keeps it from running, else None."""

    backend: str
    precision: str
    roles: list[Role]
    lacks: str | None
    latency_ms: dict[Role, float] | None = None


def _line(entry: _Entry) -> str:
    if entry.latency_ms is None:
        shown = f"   not available: {entry.lacks}"
    else:
        shown = "".join(f"{latency_ms:>10.2f}" for latency_ms in entry.latency_ms.values())
    mark = ""
    if "high" in entry.roles:
        mark = "   <- runtime"
    elif entry.roles:
        mark = "   <- runtime, low"
    return f"{entry.backend:<10}{entry.precision:<10}{shown}{mark}"


def _measure(
    weights: Weights, sizes_px: dict[Role, int], runtime: Runtime, runs: int, within: float
) -> dict[Role, float]:
    """The median of each role."""
    specs = {
        role: Spec(weights, sizes_px["high"], size_px, runtime, cls_change)
        for role, size_px in sizes_px.items()
    }
    timed = time_single(specs, runs, within)
    return {role: float(np.median(timed[role].latency_ms)) for role in specs}


if __name__ == "__main__":
    main()
