"""The reading side of an extraction: images table to decoded batches, in a thread a few batches ahead."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.images import decode_stored
from pipeline.tables import iter_batches
from pipeline.tally import Tally

_QUEUED_BATCHES = 4
_READ_ROWS = 256


class Batch(NamedTuple):
    """Images of one shard: ids and canvases, uint8 (B, 3, S, S)."""

    shard: int
    image_ids: list[str]
    canvases: Tensor


def _iter_rows(images: Path) -> Iterator[tuple[str, bytes]]:
    for batch in iter_batches(images, ["image_id", "jpeg"], _READ_ROWS):
        yield from zip(batch["image_id"].to_pylist(), batch["jpeg"].to_pylist(), strict=True)


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
            # Not torch.stack, which wakes threads that then keep the engine's from their cores.
            canvases = torch.empty(len(pairs), 3, canvas_px, canvas_px, dtype=torch.uint8)
            for row, (image_id, jpeg) in enumerate(pairs):
                canvases[row] = decode_stored(image_id, jpeg, canvas_px)
            tally.reader_s += time.perf_counter() - started_s
            yield Batch(shard, [image_id for image_id, _ in pairs], canvases)
        if empty:
            return


def run_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Run the reader in a thread of its own, a few batches ahead; its error surfaces here."""
    queue: Queue[Batch | BaseException | None] = Queue(_QUEUED_BATCHES)
    stop = threading.Event()

    def fill() -> None:
        try:
            for batch in batches:
                if stop.is_set():
                    return
                queue.put(batch)
            queue.put(None)
        except BaseException as error:
            queue.put(error)

    thread = threading.Thread(target=fill, name="reader", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while not queue.empty():  # The thread may wait for room; let it see that it should stop.
            queue.get_nowait()
