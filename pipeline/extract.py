"""Extraction of one role: decode, forward and write overlap, and finished shards survive a kill.

decoding threads -> reader thread -> queue -> forward (calling thread) -> queue -> writer thread
Queues are short, so memory does not grow with the number of images.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.ahead import run_ahead
from pipeline.engines.base import Answer, Engine, Spec, join
from pipeline.engines.build import build_engine
from pipeline.errors import PipelineError, is_out_of_memory
from pipeline.reader import Batch, read_batches
from pipeline.tables import count_rows, read_fingerprint
from pipeline.tally import Tally
from pipeline.writer import ShardWriter


def find_finished(
    folder: Path, fingerprint: Mapping[str, Any], total: int, shard_images: int
) -> dict[int, int]:
    """Shards of an earlier, killed run: number to rows. One that does not fit is an error, not an input.

    What that run was writing when it was killed is deleted.
    """
    for unfinished in folder.glob(".part-*.tmp"):
        unfinished.unlink()
    finished = {}
    for path in sorted(folder.glob("part-*.parquet")):
        shard, rows = int(path.stem.partition("-")[2]), count_rows(path)
        if read_fingerprint(path) != fingerprint or rows != min(shard_images, total - shard * shard_images):
            raise PipelineError(
                f"{path}: left by a run with other settings; delete {folder} and run extract again"
            )
        finished[shard] = rows
    return finished


def check_finite(image_ids: list[str], result: Answer) -> None:
    """Raise PipelineError naming the first image, and the first layer in it, that is NaN or infinite."""
    # One NaN or infinity makes the sum no number; the search for it is for that case only. In NumPy, since
    # torch would share the sum out among threads that the engine's threads keep waiting.
    if all(np.isfinite(value.numpy().sum()) for value in (result.trace, result.embedding, result.logits)):
        return
    finite = torch.cat(
        [
            result.trace.isfinite().all(2),
            result.embedding.isfinite().all(1, keepdim=True),
            result.logits.isfinite().all(1, keepdim=True),
        ],
        dim=1,
    ).numpy()
    if finite.all():
        return
    row = int(np.argmin(finite.all(axis=1)))
    column = int(np.argmin(finite[row]))
    layers = result.trace.shape[1]
    names = ["the embedding layer", *(f"block {i}" for i in range(1, layers)), "the final norm", "the head"]
    raise PipelineError(
        f"{image_ids[row]}: NaN or infinity after {names[column]}; check the weights, or use "
        "runtime.precision: float32"
    )


def _forward(engine: Engine, batch: Batch, tally: Tally) -> Answer:
    """One batch in as few passes as memory allows; the result is on the CPU and checked."""
    started_s = time.perf_counter()
    parts: list[Answer] = []
    done = 0
    while done < len(batch.image_ids):
        canvases = batch.canvases[done : done + tally.batch_size]
        try:
            result = engine.run(engine.upload(canvases)).each(torch.Tensor.cpu)
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            _halve(tally, error)
            continue
        done += len(canvases)
        in_one = len(canvases) == len(batch.image_ids)
        parts.append(result if in_one else result.each(torch.clone))  # The engine's next run overwrites it.
    whole = parts[0] if len(parts) == 1 else join(parts)
    tally.forward_s += time.perf_counter() - started_s
    tally.images += done
    check_finite(batch.image_ids, whole)
    return whole


def _halve(tally: Tally, error: Exception) -> None:
    """Halve the batch after an out-of-memory error; anything else, or a batch of one, is raised."""
    tally.batch_size = half_of(tally.batch_size, error)
    tally.out_of_memory_halvings += 1
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def half_of(batch_size: int, error: Exception) -> int:
    """A batch that may fit where `error` says that one of `batch_size` does not; raises what says else."""
    if not is_out_of_memory(error):
        raise error
    if batch_size == 1:
        raise PipelineError(
            "out of memory at a batch of one image; use a machine with more memory"
        ) from error
    return batch_size // 2


def build_within_memory(spec: Spec, batch_size: int) -> Engine:
    """The engine for batches of `batch_size`, or of the first of its halvings that there is memory for."""
    try:
        return build_engine(spec, batch_size)
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        smaller = half_of(batch_size, error)
    return build_within_memory(spec, smaller)


def extract(
    images: Path,
    folder: Path,
    engine: Engine,
    fingerprint: Mapping[str, Any],
    canvas_px: int,
    batch_size: int,
    shard_images: int,
    on_progress: Callable[[int], object],
) -> Tally:
    """Write `folder`/part-*.parquet for all rows of `images`; whole shards found there are kept.

    batch_size: asked for; the engine's is smaller where memory was short.

    Raises PipelineError naming image and layer where a value is NaN or infinite.
    """
    started_s = time.perf_counter()
    finished = find_finished(folder, fingerprint, count_rows(images), shard_images)
    fitting = min(batch_size, engine.batch_size)
    # Each half is a whole number: from 7 to 1 it takes two of them.
    halvings = (batch_size // fitting).bit_length() - 1
    tally = Tally(
        batch_size=fitting,
        resumed_images=sum(finished.values()),
        out_of_memory_halvings=halvings,
    )
    on_progress(tally.resumed_images)
    batches = read_batches(images, set(finished), canvas_px, batch_size, shard_images, tally)
    with ShardWriter(folder, fingerprint, tally) as writer:
        for batch in run_ahead(batches):
            writer.add(batch.shard, batch.image_ids, _forward(engine, batch, tally))
            on_progress(len(batch.image_ids))
    tally.wall_s = time.perf_counter() - started_s
    return tally
