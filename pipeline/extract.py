"""Extraction of one role: decode, forward and write overlap, and finished shards survive a kill.

reader thread -> queue -> forward (calling thread) -> queue -> writer thread
Queues are short, so memory does not grow with the number of images.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.engine import EagerEngine
from pipeline.errors import PipelineError
from pipeline.images import decode_canvas
from pipeline.tables import (
    count_rows,
    embeddings_schema,
    iter_batches,
    read_fingerprint,
    vector_array,
    write_table,
)
from pipeline.vit import Pass

_QUEUED_BATCHES = 4
_QUEUED_SHARDS = 1
_READ_ROWS = 256


class Batch(NamedTuple):
    """Images of one shard: ids and canvases, uint8 (B, 3, S, S)."""

    shard: int
    image_ids: list[str]
    canvases: Tensor


@dataclass
class Tally:
    """Seconds that each part was at work, and what happened on the way."""

    images: int = 0
    resumed_images: int = 0
    batch_size: int = 0
    out_of_memory_halvings: int = 0
    reader_s: float = 0.0
    forward_s: float = 0.0
    writer_s: float = 0.0
    wall_s: float = 0.0
    failure: list[BaseException] = field(default_factory=list)


def extract(
    images: Path,
    folder: Path,
    engine: EagerEngine,
    fingerprint: Mapping[str, Any],
    canvas_px: int,
    batch_size: int,
    shard_images: int,
    on_progress: Callable[[int], None],
) -> Tally:
    """Write `folder`/part-*.parquet for all rows of `images`; whole shards found there are kept.

    Raises PipelineError naming image and layer where a value is NaN or infinite.
    """
    started_s = time.perf_counter()
    finished = find_finished(folder, fingerprint, count_rows(images), shard_images)
    tally = Tally(batch_size=batch_size, resumed_images=sum(finished.values()))
    on_progress(tally.resumed_images)
    batches = read_batches(images, set(finished), canvas_px, batch_size, shard_images, tally)
    with _Writer(folder, fingerprint, tally) as writer:
        for batch in _ahead(batches, tally):
            writer.add(batch, _forward(engine, batch, tally))
            on_progress(len(batch.image_ids))
    tally.wall_s = time.perf_counter() - started_s
    return tally


def find_finished(
    folder: Path, fingerprint: Mapping[str, Any], total: int, shard_images: int
) -> dict[int, int]:
    """Shards of an earlier, killed run: number to rows. One that does not fit is an error, not an input."""
    finished = {}
    for path in sorted(folder.glob("part-*.parquet")):
        shard, rows = int(path.stem.partition("-")[2]), count_rows(path)
        if read_fingerprint(path) != fingerprint or rows != min(shard_images, total - shard * shard_images):
            raise PipelineError(f"{path}: left by a run with other settings; delete {folder} and run extract again")
        finished[shard] = rows
    return finished


def read_batches(
    images: Path, skip: set[int], canvas_px: int, batch_size: int, shard_images: int, tally: Tally
) -> Iterator[Batch]:
    """Decode the images of every shard not in `skip`, in batches that never cross a shard's end."""
    rows = _iter_rows(images)
    for shard in itertools.count():
        chunk = itertools.islice(rows, shard_images)
        if shard in skip:
            if sum(1 for _ in chunk) < shard_images:
                return
            continue
        empty = True
        while pairs := list(itertools.islice(chunk, batch_size)):
            empty = False
            started_s = time.perf_counter()
            canvases = torch.stack([_decode(image_id, jpeg, canvas_px) for image_id, jpeg in pairs])
            tally.reader_s += time.perf_counter() - started_s
            yield Batch(shard, [image_id for image_id, _ in pairs], canvases)
        if empty:
            return


def to_table(image_ids: list[str], result: Pass) -> pa.Table:
    """Rows of a shard from the images' ids and a `Pass` on the CPU."""
    trace = result.trace
    schema = embeddings_schema(trace.shape[2], trace.shape[1], result.logits.shape[1])
    columns = [
        pa.array(image_ids, pa.string()),
        vector_array(result.embedding.numpy()),
        vector_array(trace.flatten(1).numpy()),
        vector_array(result.logits.numpy()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def check_finite(image_ids: list[str], result: Pass) -> None:
    """Raise PipelineError naming the first image, and the first layer in it, that is NaN or infinite."""
    finite = torch.cat(
        [result.trace.isfinite().all(2), result.embedding.isfinite().all(1, keepdim=True)]
        + [result.logits.isfinite().all(1, keepdim=True)],
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


def _iter_rows(images: Path) -> Iterator[tuple[str, bytes]]:
    for batch in iter_batches(images, ["image_id", "jpeg"], _READ_ROWS):
        yield from zip(batch["image_id"].to_pylist(), batch["jpeg"].to_pylist(), strict=True)


def _decode(image_id: str, jpeg: bytes, canvas_px: int) -> Tensor:
    try:
        return decode_canvas(jpeg, canvas_px)
    except (RuntimeError, ValueError) as error:
        raise PipelineError(f"{image_id}: cannot be decoded ({error}); run prepare again") from None


def _ahead(batches: Iterator[Batch], tally: Tally) -> Iterator[Batch]:
    """Run the reader in a thread of its own, a few batches ahead; its error surfaces here."""
    queue: Queue[Batch | None] = Queue(_QUEUED_BATCHES)
    stop = threading.Event()

    def fill() -> None:
        try:
            for batch in batches:
                if stop.is_set():
                    return
                queue.put(batch)
        except BaseException as error:
            tally.failure.append(error)
        queue.put(None)

    thread = threading.Thread(target=fill, name="reader", daemon=True)
    thread.start()
    try:
        while (batch := queue.get()) is not None:
            yield batch
    finally:
        stop.set()
    if tally.failure:
        raise tally.failure[0]


def _forward(engine: EagerEngine, batch: Batch, tally: Tally) -> Pass:
    """One batch in as few passes as memory allows; the result is on the CPU and checked."""
    started_s = time.perf_counter()
    parts: list[Pass] = []
    done = 0
    while done < len(batch.image_ids):
        canvases = batch.canvases[done : done + tally.batch_size]
        try:
            result = engine.run(engine.upload(canvases))
            parts.append(Pass(*(value.cpu() for value in result)))
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            _halve(tally, error)
            continue
        done += len(canvases)
    whole = Pass(*(torch.cat(values) for values in zip(*parts, strict=True)))
    tally.forward_s += time.perf_counter() - started_s
    tally.images += done
    check_finite(batch.image_ids, whole)
    return whole


def _halve(tally: Tally, error: Exception) -> None:
    """Halve the batch after an out-of-memory error; anything else, or a batch of one, is raised."""
    is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate" in str(error)
    if not is_memory:
        raise error
    if tally.batch_size == 1:
        raise PipelineError("out of memory at a batch of one image; use a machine with more memory") from error
    tally.batch_size //= 2
    tally.out_of_memory_halvings += 1
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Writer:
    """Collects a shard's batches and writes it in a thread of its own; its error surfaces on the next call."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], tally: Tally) -> None:
        self.folder, self.fingerprint, self.tally = folder, fingerprint, tally
        self.shard: int | None = None
        self.parts: list[pa.Table] = []
        self.queue: Queue[tuple[int, list[pa.Table]] | None] = Queue(_QUEUED_SHARDS)
        self.thread = threading.Thread(target=self._drain, name="writer", daemon=True)

    def __enter__(self) -> "_Writer":
        self.thread.start()
        return self

    def add(self, batch: Batch, result: Pass) -> None:
        if self.shard not in (None, batch.shard):
            self._send()
        self.shard = batch.shard
        self.parts.append(to_table(batch.image_ids, result))

    def __exit__(self, kind: object, *_rest: object) -> None:
        if kind is None and self.parts:
            self._send()
        self.queue.put(None)
        self.thread.join()
        if kind is None and self.tally.failure:
            raise self.tally.failure[0]

    def _send(self) -> None:
        if self.tally.failure:
            raise self.tally.failure[0]
        assert self.shard is not None
        self.queue.put((self.shard, self.parts))
        self.parts = []

    def _drain(self) -> None:
        while (item := self.queue.get()) is not None:
            started_s = time.perf_counter()
            try:
                shard, parts = item
                path = self.folder / f"part-{shard:05d}.parquet"
                write_table(path, pa.concat_tables(parts).combine_chunks(), self.fingerprint)
            except BaseException as error:
                self.tally.failure.append(error)
            self.tally.writer_s += time.perf_counter() - started_s
