"""Extraction against the bare forward pass, and its memory at 2,000 and at 10,000 images.

Run by `make bench`. All numbers of a table come from one run on one machine; the ratios are what counts.
The bare forward pass is timed before and after each extraction, on one batch that stays in memory.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import torch

from pipeline.engine import EagerEngine
from pipeline.files import write_json
from pipeline.machine import current_commit, describe_machine
from pipeline.params.model import ModelParams
from pipeline.params.runtime import RuntimeParams
from pipeline.runtime import resolve_runtime, synchronize
from pipeline.tables import read_fingerprint, read_table, write_table
from pipeline.vit import load_weights

BATCH = 64
SIZES_PX = {"low": 32, "high": 64}
COLUMNS = ["image_id", "split", "wnid", "label", "jpeg"]
BARE_SECONDS = 8.0


def repeat_images(source: Path, path: Path, count: int) -> Path:
    """The images of `source` over and over, under new ids, until there are `count`."""
    table = read_table(source, COLUMNS)
    copies = pa.concat_tables([table] * -(-count // len(table))).slice(0, count)
    ids = pa.array([f"copy/{row:06d}.JPEG" for row in range(count)])
    write_table(path, copies.set_column(0, copies.schema.field(0), ids), read_fingerprint(source))
    return path


def draw_images(folder: Path) -> Path:
    """A table of the sample's images, for a clone that has run nothing yet."""
    archive, images = str(folder / "sample.zip"), folder / "sample.parquet"
    few = [f"--set=data.{split}_images=1000" for split in ("calibration", "evaluation")]
    for words in (
        ["stages.download", "--set", "data.source=sample", "--archive", archive],
        [
            "stages.prepare",
            *few,
            "--archive",
            archive,
            "--images",
            str(images),
            "--metrics",
            archive + ".json",
        ],
    ):
        subprocess.run([sys.executable, "-m", *words], check=True, stderr=subprocess.DEVNULL)
    return images


def time_bare_forward(engine: EagerEngine) -> float:
    """Images per second of the forward pass alone."""
    canvases = engine.upload(torch.randint(0, 256, (BATCH, 3, 64, 64), dtype=torch.uint8))
    engine.run(canvases)
    passes, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < BARE_SECONDS:
        engine.run(canvases)
        synchronize(engine.runtime.device)
        passes += 1
    return passes * BATCH / (time.perf_counter() - started_s)


def run_extraction(images: Path, role: str, folder: Path) -> dict[str, Any]:
    """What `adaptive-vit extract` itself says of a run, in a process of its own."""
    command = [sys.executable, "-m", "stages.extract", role, "--images", str(images)]
    command += ["--embeddings", str(folder), "--metrics", str(folder), "--set", f"runtime.batch_size={BATCH}"]
    command += ["--set", "model.weights=random"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    measured: dict[str, Any] = json.loads((folder / f"{role}.json").read_text(encoding="utf-8"))
    return measured


def compare_role(role: str, images: Path, folder: Path) -> dict[str, float]:
    runtime = resolve_runtime(
        RuntimeParams(device="auto", backend="auto", precision="float32", batch_size=BATCH, threads=None)
    )
    weights = load_weights(ModelParams(name="static_vit", weights="random", seed=0), SIZES_PX["high"])
    engine = EagerEngine(weights, SIZES_PX[role], runtime)
    before = time_bare_forward(engine)
    extraction = run_extraction(images, role, folder)
    after = time_bare_forward(engine)
    rate, bare = extraction["total"]["images_per_s"], (before + after) / 2
    return {
        "bare_forward_images_per_s": bare,
        "bare_forward_spread": abs(before - after) / bare,
        "extraction_images_per_s": rate,
        "reader_images_per_s": extraction["reader"]["images_per_s"],
        "writer_images_per_s": extraction["writer"]["images_per_s"],
        "extraction_over_bare_forward": rate / bare,
    }


def compare_memory(source: Path, folder: Path) -> dict[str, float]:
    peaks = {}
    for count in (2_000, 10_000):
        images = repeat_images(source, folder / f"{count}.parquet", count)
        peaks[count] = run_extraction(images, "low", folder / str(count))["peak_memory_mb"]
    return {
        "peak_memory_mb_2000": peaks[2_000],
        "peak_memory_mb_10000": peaks[10_000],
        "peak_memory_10000_over_2000": peaks[10_000] / peaks[2_000],
    }


@click.command(help=__doc__)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    default="data/images.parquet",
    show_default=True,
    help="Table of images; the sample is drawn where it is missing.",
)
@click.option("--results", type=click.Path(path_type=Path), default="benchmarks/results", show_default=True)
def main(images: Path, results: Path) -> None:
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = images if images.exists() else draw_images(folder)
        some = repeat_images(images, folder / "some.parquet", 2_000)
        measured: dict[str, Any] = {role: compare_role(role, some, folder / role) for role in SIZES_PX}
        measured["memory"] = compare_memory(images, folder)
    threads = torch.get_num_threads()
    conditions = machine | {"batch_size": BATCH, "threads": threads, "commit": current_commit(Path())}
    device = re.sub(r"[^a-z0-9]+", "-", (machine["gpu"] or machine["processor"]).lower()).strip("-")
    write_json(results / f"{device}.json", {"extraction": measured, "conditions": conditions})
    click.echo(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
