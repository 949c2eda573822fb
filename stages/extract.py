"""Logits, embedding and CLS trace of every image in one role, as Parquet shards."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import pipeline
from pipeline.checkpoint import load_weights
from pipeline.engines.base import Spec, describe_transform
from pipeline.errors import PipelineError
from pipeline.extract import build_within_memory, extract
from pipeline.files import sha256_of, write_json
from pipeline.machine import describe_machine
from pipeline.memory import process_peak_mb
from pipeline.params.extract import ExtractParams
from pipeline.params.model import ModelParams, ResolutionParams, Role
from pipeline.params.runtime import RuntimeParams
from pipeline.runtime import Runtime, resolve_runtime
from pipeline.tables import count_rows
from pipeline.tally import Tally
from pipeline.vit import Weights
from stages.common import ParamsFile, path_option, stage_command
from stages.progress import progress

# Outside DVC's outputs, which DVC deletes before a run: finished shards survive a kill here.
SCRATCH = Path(".cache/extract")


@stage_command("extract")
@click.argument("role", type=click.Choice(["low", "high"]))
@path_option("images", "data/images.parquet", "Table of images (Parquet).")
@path_option(
    "embeddings", "data/embeddings", "Folder; the shards (Parquet) replace a folder of the role's name there."
)
@path_option("metrics", "metrics/extract", "Folder; rates (images/s) go into <role>.json there.")
def main(params: ParamsFile, role: Role, images: Path, embeddings: Path, metrics: Path) -> None:
    """Run the model on every image at the ROLE's resolution and keep what it says, layer by layer."""
    _check_folder(embeddings / role)
    runtime_params = params.section("runtime", RuntimeParams)
    sizes = params.section("resolutions", ResolutionParams)
    options = params.section("extract", ExtractParams)
    weights = load_weights(params.section("model", ModelParams), sizes.high)
    whole = resolve_runtime(runtime_params, weights.architecture)
    runtime = whole.of(role)
    fingerprint = _fingerprint(role, getattr(sizes, role), sizes.high, weights, runtime, images)
    if runtime.precision != whole.precision:
        fingerprint["high_precision"] = whole.precision
    batch_size, shard_images = runtime_params.batch_size, options.shard_images
    scratch = _scratch(fingerprint, runtime, batch_size, shard_images, embeddings / role)
    click.echo(
        f"extract {role}: {getattr(sizes, role)} px, {runtime.device}, {runtime.backend}, "
        f"{runtime.precision}, {runtime.threads} threads, batch {batch_size}"
    )
    with progress(f"extract {role}", count_rows(images), "images") as advance:
        engine = build_within_memory(Spec(weights, sizes.high, getattr(sizes, role), runtime), batch_size)
        tally = extract(images, scratch, engine, fingerprint, sizes.high, batch_size, shard_images, advance)
    _publish(scratch, embeddings / role)
    _drop_others(scratch)
    write_json(metrics / f"{role}.json", _rates(tally, runtime))


def _check_folder(folder: Path) -> None:
    """It is replaced as a whole; refuse where that would take files of others with it."""
    found = sorted(folder.iterdir()) if folder.exists() else []
    if foreign := [path.name for path in found if not path.match("part-*.parquet")]:
        raise PipelineError(
            f"{folder}: holds {foreign[0]}, which extract does not write, and would be deleted; expected "
            "part-*.parquet alone; move the rest away, or name another folder with --embeddings"
        )


def _fingerprint(
    role: Role, size_px: int, canvas_px: int, weights: Weights, runtime: Runtime, images: Path
) -> dict[str, Any]:
    return {
        "kind": "embeddings",
        "role": role,
        "size_px": size_px,
        "canvas_px": canvas_px,
        "trace_states": weights.architecture.depth + 1,
        "weights_sha256": weights.sha256,
        "classes": weights.classes and list(weights.classes),
        "transform": describe_transform(weights.normalisation),
        "precision": runtime.precision,
        "backend": runtime.backend,
        "images_sha256": sha256_of(images),
        "images": count_rows(images),
    }


def _scratch(
    fingerprint: Mapping[str, Any], runtime: Runtime, batch_size: int, shard_images: int, target: Path
) -> Path:
    """Where a run goes on after it was killed: the same target, settings, device, installation and code."""
    made_by = str(runtime.device), runtime.threads, describe_machine(), _digest_code()
    settings = json.dumps([fingerprint, batch_size, shard_images, made_by], sort_keys=True)
    return SCRATCH / f"{fingerprint['role']}-{_digest(str(target.resolve()))}-{_digest(settings)}"


def _drop_others(scratch: Path) -> None:
    """What earlier settings left behind of the same target."""
    for stale in SCRATCH.glob(scratch.name.rpartition("-")[0] + "-*"):
        shutil.rmtree(stale, ignore_errors=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _digest_code() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(pipeline.__file__).parent.rglob("*")):
        if path.suffix in {".py", ".h", ".cpp"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _publish(scratch: Path, folder: Path) -> None:
    """Put the whole set in place at once."""
    _check_folder(folder)
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(scratch, folder)


def _name_device(runtime: Runtime) -> dict[str, str]:
    """With the GPU's name only where it did the work."""
    machine = describe_machine()
    keys = ("processor", "gpu") if runtime.device.type == "cuda" else ("processor",)
    return {key: machine[key] for key in keys}


def _rates(tally: Tally, runtime: Runtime) -> dict[str, Any]:
    def rate(seconds: float) -> dict[str, float]:
        return {"images_per_s": tally.images / seconds} if seconds else {}

    return {
        "images": tally.images + tally.resumed_images,
        "resumed_images": tally.resumed_images,
        "batch_size": tally.batch_size,
        "out_of_memory_halvings": tally.out_of_memory_halvings,
        "reader": rate(tally.reader_s),
        "forward": rate(tally.forward_s),
        "writer": rate(tally.writer_s),
        "total": {**rate(tally.wall_s), "wall_s": tally.wall_s},
        "peak_memory_mb": process_peak_mb(runtime.device),
        **_name_device(runtime),
        "device": str(runtime.device),
        "backend": runtime.backend,
        "precision": runtime.precision,
        "threads": runtime.threads,
    }


if __name__ == "__main__":
    main()
