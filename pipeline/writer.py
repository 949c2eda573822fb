"""The writing side of an extraction: passes to Parquet shards, in a thread of its own.

Two buffers of a shard's size take turns, one being filled and one being written, so that memory is taken
once and not shard by shard.
"""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.engines.base import Answer
from pipeline.tables import embeddings_schema, vector_array, write_table
from pipeline.tally import Tally

_BUFFERS = 2


class Shard:
    """Room for `images` rows of embedding (D), trace ((L+1)·D) and logits (C), and what fills it."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.number = -1
        self.image_ids: list[str] = []
        self.values: dict[str, NDArray[np.float32]] = {}
        self.states = 0

    def start(self, number: int) -> None:
        self.number, self.image_ids = number, []

    def add(self, image_ids: list[str], result: Answer) -> None:
        """Copy the rows of an answer that is on the CPU behind those already here."""
        self.states = result.trace.shape[1]
        first, last = len(self.image_ids), len(self.image_ids) + len(image_ids)
        for name in ("embedding", "trace", "logits"):
            rows = getattr(result, name).flatten(1).numpy()
            if name not in self.values:
                self.values[name] = np.empty((self.images, rows.shape[1]), dtype=np.float32)
            self.values[name][first:last] = rows
        self.image_ids += image_ids

    def to_table(self) -> pa.Table:
        """The filled rows, without a copy."""
        filled = {name: rows[: len(self.image_ids)] for name, rows in self.values.items()}
        width, classes = filled["embedding"].shape[1], filled["logits"].shape[1]
        columns = [pa.array(self.image_ids, pa.string()), *map(vector_array, filled.values())]
        return pa.Table.from_arrays(columns, schema=embeddings_schema(width, self.states, classes))


class ShardWriter:
    """Collects passes and writes a shard when it is whole; an error surfaces on the next call."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], shard_images: int, tally: Tally) -> None:
        self.folder, self.fingerprint, self.tally = folder, fingerprint, tally
        self.failure: BaseException | None = None
        self.filling: Shard | None = None
        self.free: Queue[Shard] = Queue()
        for _ in range(_BUFFERS):
            self.free.put(Shard(shard_images))
        self.full: Queue[Shard | None] = Queue()
        self.thread = threading.Thread(target=self._drain, name="writer", daemon=True)

    def __enter__(self) -> "ShardWriter":
        self.thread.start()
        return self

    def add(self, number: int, image_ids: list[str], result: Answer) -> None:
        if self.filling is not None and self.filling.number != number:
            self._send(self.filling)
            self.filling = None
        if self.filling is None:
            self.filling = self.free.get()
            self.filling.start(number)
        self.filling.add(image_ids, result)

    def __exit__(self, kind: object, *_rest: object) -> None:
        if kind is None and self.filling is not None and not self.failure:
            self.full.put(self.filling)
        self.full.put(None)
        self.thread.join()
        if kind is None and self.failure:
            raise self.failure

    def _send(self, shard: Shard) -> None:
        if self.failure:
            raise self.failure
        self.full.put(shard)

    def _drain(self) -> None:
        while (shard := self.full.get()) is not None:
            started_s = time.perf_counter()
            try:
                path = self.folder / f"part-{shard.number:05d}.parquet"
                write_table(path, shard.to_table(), self.fingerprint)
            except BaseException as error:
                self.failure = error
            self.tally.writer_s += time.perf_counter() - started_s
            self.free.put(shard)
