"""The reading side of an extraction: images table to decoded batches; several threads decode."""

import itertools
import time
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from pipeline.ahead import count_threads, map_ahead
from pipeline.images import decode_stored, stack_canvases
from pipeline.tables import iter_batches
from pipeline.tally import Tally

_READ_ROWS = 256


class Batch(NamedTuple):
    """Images of one shard: ids and canvases, uint8 (B, 3, S, S)."""

    shard: int
    image_ids: list[str]
    canvases: Tensor


class _Encoded(NamedTuple):
    shard: int
    image_id: str
    jpeg: bytes


class _Decoded(NamedTuple):
    shard: int
    image_id: str
    canvas: Tensor
    seconds: float


def read_batches(
    images: Path, skip: set[int], canvas_px: int, batch_size: int, shard_images: int, tally: Tally
) -> Iterator[Batch]:
    """Decode the images of every shard not in `skip`, in batches that never cross a shard's end."""

    def decode(row: _Encoded) -> _Decoded:
        started_s = time.perf_counter()
        canvas = decode_stored(row.image_id, row.jpeg, canvas_px)
        return _Decoded(row.shard, row.image_id, canvas, time.perf_counter() - started_s)

    wanted = (row for row in _read_rows(images, shard_images) if row.shard not in skip)
    for shard, rows in itertools.groupby(map_ahead(decode, wanted), attrgetter("shard")):
        while decoded := list(itertools.islice(rows, batch_size)):
            canvases = stack_canvases([image.canvas for image in decoded])
            tally.reader_s += sum(image.seconds for image in decoded) / count_threads()
            yield Batch(shard, [image.image_id for image in decoded], canvases)


def _read_rows(images: Path, shard_images: int) -> Iterator[_Encoded]:
    number = itertools.count()
    for batch in iter_batches(images, ["image_id", "jpeg"], _READ_ROWS):
        for image_id, jpeg in zip(batch["image_id"].to_pylist(), batch["jpeg"].to_pylist(), strict=True):
            yield _Encoded(next(number) // shard_images, image_id, jpeg)
