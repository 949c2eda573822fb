"""Everything that `make bench` measures, in one run on one machine: the ratios are what counts."""

import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.anatomy import dissect
from benchmarks.answers import REFERENCE
from benchmarks.extraction import (
    BATCH,
    Ours,
    compare_bare,
    compare_scales,
    repeat_images,
    time_peer,
    write_files,
)
from benchmarks.goals import judge_goals
from benchmarks.inference import (
    ESCALATION_RATE,
    OFFLINE_BLOCK,
    USUAL_IMAGES,
    build_bench,
    compare,
    name_systems,
)
from benchmarks.table import format_bench
from pipeline.architecture import ARCHITECTURES
from pipeline.backends import BACKENDS, why_not
from pipeline.errors import PipelineError
from pipeline.files import whole_file, write_json
from pipeline.machine import CODE, current_commit, describe_machine
from pipeline.measure import read_sample
from pipeline.params.model import Role
from pipeline.params.replay import Scenario
from pipeline.params.runtime import Precision, RuntimeParams
from pipeline.results import replace_in_file
from pipeline.runtime import Runtime, resolve_runtime
from pipeline.vit import Weights, draw_weights
from stages.common import path_option, readable_errors

SIZES_PX: dict[str, dict[Role, int]] = {
    "static_vit": {"low": 32, "mid": 48, "high": 64},
    "vit_base_patch16": {"low": 112, "mid": 160, "high": 224},
}
EXTRACTED = "static_vit"
EXTRACTED_ROLES: tuple[Role, ...] = ("low", "high")
# Without the results, which lie beside it and change with every run.
BENCHMARK_CODE = (*CODE, "benchmarks/*.py")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def fastest(precision: Precision) -> Runtime:
    """What `runtime.backend: auto` would take, for either model."""
    params = RuntimeParams(device="auto", backend="auto", precision=precision, batch_size=BATCH, threads=None)
    return resolve_runtime(params, ARCHITECTURES[EXTRACTED])


def measure_extraction(
    images: Path, folder: Path, count: int, scales: tuple[int, ...], peer_python: str | None
) -> dict[str, Any]:
    sizes_px = SIZES_PX[EXTRACTED]
    some = repeat_images(images, folder / "some.parquet", count)
    files = write_files(some, folder / "files", count // 4)
    found: dict[str, Any] = {"images": count, "peer_images": count // 4}
    for precision in runnable_precisions():
        runtime = fastest(precision)
        name = f"{runtime.backend} {precision}"
        for role in EXTRACTED_ROLES:
            click.echo(f"extraction: {name}, {role}")
            ours = Ours(EXTRACTED, sizes_px, runtime)
            run = compare_bare(ours, role, images, count, folder / name / role)
            found.setdefault(name, {})[role] = run
    for role in EXTRACTED_ROLES:
        click.echo(f"extraction: timm, {role}")
        rate = time_peer(sys.executable, "timm", files, folder / f"timm-{role}", sizes_px[role])
        found.setdefault("timm DataLoader + hooks", {})[role] = {"extraction_images_per_s": rate}
        if peer_python:
            rate = time_peer(peer_python, "thingsvision", files, folder / f"tv-{role}", sizes_px[role])
            found.setdefault("thingsvision", {})[role] = {"extraction_images_per_s": rate}
    runtime = fastest(runnable_precisions()[-1])
    click.echo(f"extraction at scale: {runtime.backend} {runtime.precision}, {scales}")
    ours = Ours(EXTRACTED, sizes_px, runtime)
    ours.extract(some, "low", folder / "first")  # What only a first run pays for.
    found["scale"] = compare_scales(ours, images, folder / "scale", scales)
    found["scale_runtime"] = f"{runtime.backend} {runtime.precision}"
    return found


def dissect_all(weights: Weights, sizes_px: dict[Role, int], canvases: Tensor) -> dict[str, Any]:
    """By engine and precision."""
    found: dict[str, Any] = {}
    for precision in runnable_precisions():
        runtime = fastest(precision)
        name = f"{runtime.backend} {precision}"
        click.echo(f"anatomy: {name}")
        bench = build_bench(weights, sizes_px, runtime)
        found[name] = dissect(bench, canvases)
    return found


def repeat(canvases: Tensor, count: int) -> Tensor:
    """As many canvases as asked for, from the first on again where there are fewer."""
    return canvases[torch.arange(count) % len(canvases)]


def random_weights(name: str) -> Weights:
    return draw_weights(ARCHITECTURES[name], 0, SIZES_PX[name]["high"])


def runnable_precisions() -> list[Precision]:
    runtime = fastest("float32")
    return [name for name in PRECISIONS if why_not(runtime.backend, runtime.device, name) is None]


def name_device(machine: Mapping[str, Any], runtime: Runtime) -> str:
    """For files: the GPU, or the processor with its engine."""
    gpu = machine["gpu"].split(",")[0]  # Without the driver's version.
    name = gpu or f"{machine['processor']} {runtime.backend}"
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def conditions(
    machine: Mapping[str, Any], runtime: Runtime, name: str, images: int, offline_images: int, commit: str
) -> dict[str, Any]:
    blocks = range(0, offline_images, block := OFFLINE_BLOCK[runtime.device.type])
    return {
        **machine,
        "threads": runtime.threads,
        "device": str(runtime.device),
        "model": f"{name}, random weights, seed 0",
        "sizes_px": SIZES_PX[name],
        "escalation_rate": ESCALATION_RATE,
        "images": images,
        "offline_images": offline_images,
        "usual_offline_images": sum(min(USUAL_IMAGES, block, offline_images - start) for start in blocks),
        "extraction_batch_size": BATCH,
        "commit": commit,
    }


def write_results(folder: Path, name: str, measured: dict[str, Any]) -> str:
    """With the goals judged; returns the tables."""
    measured["goals"] = judge_goals(measured)
    write_json(folder / f"{name}.json", measured)
    table = format_bench(measured)
    with whole_file(folder / f"{name}.md") as temporary:
        temporary.write_text(f"# {name}\n\n{table}", encoding="utf-8")
    return table


def read_scales(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    """Of the command line: whole numbers above zero between commas."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise click.BadParameter(f"{text!r}; expected numbers of images between commas, such as 1000,10000")
    return tuple(map(int, text.split(",")))


def read_skip(_context: click.Context, _option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Of the command line: backends, or one of them in one precision, but for the reference."""
    for name in names:
        if name in (REFERENCE, REFERENCE.partition(" ")[0]):
            raise click.BadParameter(
                f"{name!r}; the decisions of all others are compared with those of {REFERENCE}, so it stays"
            )
        if name not in {*BACKENDS, *name_systems()}:
            raise click.BadParameter(
                f"{name!r}; expected one of {', '.join(BACKENDS)}, which is left out in every precision, or "
                "one with a precision, such as 'eager bfloat16'"
            )
    return names


def bench(
    images: Path,
    results: Path,
    model: str,
    count: int,
    offline_count: int | None,
    extracted: int,
    scales: tuple[int, ...],
    skip: tuple[str, ...],
    memory: bool,
    peer_python: str | None,
    commit: str | None,
    readme: Path | None,
) -> None:
    """Measure, write and print."""
    if not images.exists():
        raise PipelineError(
            f"{images}: not found; run `dvc repro prepare`, which first brings the archive of data.source, "
            "or name a table of images with --images"
        )
    commit = commit or current_commit(Path(), BENCHMARK_CODE)
    if commit == "unknown":
        raise click.UsageError("figures name the commit of their code, which no git tells here: use --commit")
    machine, started_s = describe_machine(), time.perf_counter()
    runtime = fastest("float32")
    sizes_px = SIZES_PX[model]
    offline_count = offline_count or 4 * OFFLINE_BLOCK[runtime.device.type]
    canvases = read_sample(images, sizes_px["high"], max(count, offline_count)).canvases
    scenarios: dict[Scenario, Tensor] = {
        "single_stream": canvases[:count],
        "offline": repeat(canvases, offline_count),
    }
    device = name_device(machine, runtime)
    measured: dict[str, Any] = {
        "conditions": conditions(machine, runtime, model, count, offline_count, commit)
    }
    measured["inference"] = compare(
        random_weights(model),
        sizes_px,
        runtime,
        scenarios,
        skip,
        memory,
        lambda text: click.echo(f"{time.perf_counter() - started_s:4.0f} s: {text}"),
    )
    stem = device if model == EXTRACTED else f"{device}-{model}"
    unfinished = results / f"{stem}.unfinished"
    write_json(unfinished, measured)  # What took so long comes first, whatever follows.
    measured["anatomy"] = dissect_all(random_weights(model), sizes_px, canvases[:count])
    if model == EXTRACTED and extracted:
        with tempfile.TemporaryDirectory() as name:
            measured["extraction"] = measure_extraction(images, Path(name), extracted, scales, peer_python)
        write_json(unfinished, measured)
    table = write_results(results, stem, measured)
    unfinished.unlink()
    click.echo(table)
    if readme is not None:
        replace_in_file(readme, table, "bench")


@click.command(help=__doc__)
@path_option("images", "data/images.parquet", "Table of images (Parquet), which prepare writes.")
@path_option("results", "benchmarks/results", "Folder for <device>.json and <device>.md.")
@click.option(
    "--model",
    default=EXTRACTED,
    show_default=True,
    type=click.Choice(list(SIZES_PX)),
    help="Network, with random weights.",
)
@click.option("--count", default=300, show_default=True, help="Images of the inference part.")
@click.option("--offline-count", type=int, help="Images of its offline part; four blocks where not said.")
@click.option(
    "--extract",
    "extracted",
    default=4000,
    show_default=True,
    help=f"Least images of the extraction part, which is measured with {EXTRACTED} alone; 0 leaves it out.",
)
@click.option(
    "--scales",
    default="1000,10000,100000",
    show_default=True,
    callback=read_scales,
    help="Numbers of images, between commas, of the extraction at scale.",
)
@click.option(
    "--skip",
    multiple=True,
    callback=read_skip,
    help="Leave out of inference: compile, 'eager bfloat16'. Repeatable.",
)
@click.option(
    "--memory/--no-memory", default=True, show_default=True, help="Measure the memory of each policy, too."
)
@click.option("--peer-python", help="A Python that has thingsvision; see benchmarks/README.md.")
@click.option("--commit", help="That of the code, where no git tells it.")
@click.option(
    "--readme",
    type=click.Path(path_type=Path, exists=True),
    help="Document to put the table into (Markdown).",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool, **options: Any) -> None:
    with readable_errors(debug):
        bench(**options)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
