"""Extraction side by side: ours against the engine's bare forward pass, and against what people use today.

`timm` is the usual way: a DataLoader over JPEG files (PIL), forward hooks, `.npy` files. thingsvision runs
where a Python that has it is named.
Every measured run is a process of its own, so that none finds another's memory or threads.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from pipeline.architecture import ARCHITECTURES
from pipeline.engines.base import Engine, Spec
from pipeline.engines.build import build_engine
from pipeline.errors import PipelineError
from pipeline.images import decode_stored
from pipeline.params.model import Role
from pipeline.runtime import Runtime, synchronize
from pipeline.tables import read_fingerprint, read_table, write_groups, write_table
from pipeline.vit import draw_weights
from pipeline.writer import RowGroup

BATCH = 64
BARE_SECONDS = 8.0
# Of the extraction beside it: reading the first batch and writing the last shard overlap with no pass.
LEAST_S = 20.0
COLUMNS = ["image_id", "split", "wnid", "label", "jpeg"]
SHARD = 1024


def repeat_images(source: Path, path: Path, count: int) -> Path:
    """The images of `source` over and over, under new ids, until there are `count`."""
    table = read_table(source, COLUMNS)
    copies = pa.concat_tables([table] * -(-count // len(table))).slice(0, count)
    ids = pa.array([f"copy/{row:06d}.JPEG" for row in range(count)])
    write_table(path, copies.set_column(0, copies.schema.field(0), ids), read_fingerprint(source))
    return path


def write_files(images: Path, folder: Path, count: int) -> Path:
    """The first `count` images as files, which is where the peers read from."""
    folder.mkdir(parents=True)
    table = read_table(images, ["jpeg"]).slice(0, count)
    for row, jpeg in enumerate(table["jpeg"].to_pylist()):
        (folder / f"{row:06d}.JPEG").write_bytes(jpeg)
    return folder


def time_bare_forward(engine: Engine, canvas_px: int) -> float:
    """Images per second of the forward pass alone, on one batch that stays in memory."""
    shape = (engine.batch_size, 3, canvas_px, canvas_px)
    canvases = engine.upload(torch.randint(0, 256, shape, dtype=torch.uint8))
    engine.run(canvases)
    passes, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < BARE_SECONDS:
        engine.run(canvases)
        synchronize(engine.runtime.device)
        passes += 1
    return passes * engine.batch_size / (time.perf_counter() - started_s)


@dataclass(frozen=True)
class Ours:
    """Extraction with random weights of a model, at the sizes of its roles; in batches of `BATCH`."""

    model: str
    sizes_px: Mapping[Role, int]
    runtime: Runtime

    def spec(self, role: Role) -> Spec:
        weights = draw_weights(ARCHITECTURES[self.model], 0, self.sizes_px["high"])
        return Spec(weights, self.sizes_px["high"], self.sizes_px[role], self.runtime)

    def extract(self, images: Path, role: Role, folder: Path) -> dict[str, Any]:
        """What `adaptive-vit extract` itself says of a run."""
        settings = {
            "model.name": self.model,
            "model.weights": "random",
            **{f"resolutions.{name}": size_px for name, size_px in self.sizes_px.items()},
            "runtime.device": str(self.runtime.device),
            "runtime.backend": self.runtime.backend,
            "runtime.precision": self.runtime.precision,
            "runtime.low_precision": "",
            "runtime.batch_size": BATCH,
            "runtime.threads": self.runtime.threads,
            "extract.shard_images": SHARD,
        }
        command = [sys.executable, "-m", "stages.extract", role, "--images", str(images)]
        command += ["--embeddings", str(folder), "--metrics", str(folder)]
        command += [f"--set={key}={value}" for key, value in settings.items()]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != 0:
            raise PipelineError(f"extraction of {images} for the benchmark: {done.stderr.strip()}")
        measured: dict[str, Any] = json.loads((folder / f"{role}.json").read_text(encoding="utf-8"))
        return measured


def compare_bare(ours: Ours, role: Role, source: Path, least: int, folder: Path) -> dict[str, float]:
    """Ours against the bare forward pass of the same model before and after it, at the same batch.

    Of at least so many images of `source`, over and over, and of more where those take no `LEAST_S`.
    """
    spec = ours.spec(role)
    engine = build_engine(spec, BATCH)
    before = time_bare_forward(engine, spec.canvas_px)
    count = max(least, int(LEAST_S * before))
    images = repeat_images(source, folder / "images.parquet", count)
    extraction = ours.extract(images, role, folder)
    after = time_bare_forward(engine, spec.canvas_px)
    rate, bare = extraction["total"]["images_per_s"], (before + after) / 2
    alone_ms = time_decoding(images, spec.canvas_px) + time_writing(engine, folder / "alone.parquet")
    return {
        # What would be left if decoding and writing took the cores for as long as each does alone.
        "ceiling": 1 / (1 + bare * alone_ms / 1e3 / spec.runtime.threads),
        "decode_and_write_ms": alone_ms,
        "images": count,
        "batch_size": BATCH,
        "bare_forward_images_per_s": bare,
        "bare_forward_spread": abs(before - after) / bare,
        "extraction_images_per_s": rate,
        "extraction_over_bare_forward": rate / bare,
    }


def time_decoding(images: Path, canvas_px: int) -> float:
    """ms per image of one thread that does nothing else."""
    rows = read_table(images, ["image_id", "jpeg"]).to_pylist()
    canvases = torch.empty(BATCH, 3, canvas_px, canvas_px, dtype=torch.uint8)
    started_s = time.perf_counter()
    for number, row in enumerate(rows):
        canvases[number % BATCH] = decode_stored(row["image_id"], row["jpeg"], canvas_px)
    return 1e3 * (time.perf_counter() - started_s) / len(rows)


def time_writing(engine: Engine, path: Path) -> float:
    """ms per image of one thread that writes passes, a row group at a time, and does nothing else."""
    noise = torch.randint(0, 256, (engine.batch_size, 3, *[engine.spec.canvas_px] * 2), dtype=torch.uint8)
    answer, group = engine.run(engine.upload(noise)).each(torch.Tensor.cpu), RowGroup()
    while engine.batch_size <= group.room:
        group.add([""] * engine.batch_size, answer)
    groups = [group.to_table()] * (SHARD // len(group.image_ids))
    started_s = time.perf_counter()
    write_groups(path, groups[0].schema, groups, {})
    return 1e3 * (time.perf_counter() - started_s) / sum(map(len, groups))


def compare_scales(
    ours: Ours, source: Path, folder: Path, scales: tuple[int, ...]
) -> dict[str, dict[str, float]]:
    """Rate and peak memory of the low extraction at each number of images."""
    found = {}
    for count in scales:
        images = repeat_images(source, folder / f"{count}.parquet", count)
        run = ours.extract(images, "low", folder / str(count))
        found[str(count)] = {
            "images_per_s": run["total"]["images_per_s"],
            "peak_memory_mb": run["peak_memory_mb"],
        }
    return found


def time_peer(python: str, peer: str, files: Path, folder: Path, size_px: int) -> float:
    """Images per second that a peer's script prints as its last line."""
    command = [python, "-m", f"benchmarks.{peer}_peer", str(files), str(folder), str(size_px)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise PipelineError(f"{peer}, a peer of the benchmark: {done.stderr.strip()}")
    return float(done.stdout.strip().splitlines()[-1])
