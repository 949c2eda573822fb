"""The writing side of an extraction: passes to Parquet shards, in a thread of its own.

A shard is written as it fills, a row group at a time, so that little is left to write when the last pass is
done. Two buffers of a row group's size take turns, one being filled and one being written, so that memory is
taken once.
"""

import itertools
import operator
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.engines.base import Answer
from pipeline.tables import embeddings_schema, vector_array, write_groups
from pipeline.tally import Tally

GROUP_ROWS = 256
_BUFFERS = 2
_VECTORS = ("embedding", "trace", "logits")


class RowGroup:
    """Room for `GROUP_ROWS` rows of embedding (D), trace ((L+1)·D) and logits (C), and what fills it."""

    def __init__(self) -> None:
        self.shard = -1
        self.image_ids: list[str] = []
        self.values: dict[str, NDArray[np.float32]] = {}
        self.states = 0

    def start(self, shard: int) -> None:
        self.shard, self.image_ids = shard, []

    @property
    def room(self) -> int:
        return GROUP_ROWS - len(self.image_ids)

    def add(self, image_ids: list[str], result: Answer) -> None:
        """Copy rows of an answer that is on the CPU behind those already here; there must be room."""
        self.states = result.trace.shape[1]
        first, last = len(self.image_ids), len(self.image_ids) + len(image_ids)
        for name in _VECTORS:
            rows = getattr(result, name).flatten(1).numpy()
            if name not in self.values:
                self.values[name] = np.empty((GROUP_ROWS, rows.shape[1]), dtype=np.float32)
            self.values[name][first:last] = rows
        self.image_ids += image_ids

    def to_table(self) -> pa.Table:
        """The filled rows, without a copy."""
        filled = {name: self.values[name][: len(self.image_ids)] for name in _VECTORS}
        width, classes = filled["embedding"].shape[1], filled["logits"].shape[1]
        columns = [pa.array(self.image_ids, pa.string()), *map(vector_array, filled.values())]
        return pa.Table.from_arrays(columns, schema=embeddings_schema(width, self.states, classes))


class ShardWriter:
    """Collects passes and writes them; an error surfaces on a later call, and leaves no part of a shard."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], tally: Tally) -> None:
        self.folder, self.fingerprint, self.tally = folder, fingerprint, tally
        self.failure: BaseException | None = None
        self.abandoned = False
        self.filling: RowGroup | None = None
        self.free: Queue[RowGroup] = Queue()
        for _ in range(_BUFFERS):
            self.free.put(RowGroup())
        self.full: Queue[RowGroup | None] = Queue()
        self.thread = threading.Thread(target=self._drain, name="writer", daemon=True)

    def __enter__(self) -> "ShardWriter":
        self.thread.start()
        return self

    def add(self, shard: int, image_ids: list[str], result: Answer) -> None:
        """Rows of one shard, which follow those that are there; no shard comes twice."""
        first = 0
        while first < len(image_ids):
            group = self._find_room(shard)
            last = min(first + group.room, len(image_ids))
            group.add(image_ids[first:last], result.each(operator.itemgetter(slice(first, last))))
            first = last

    def __exit__(self, kind: object, *_rest: object) -> None:
        self.abandoned = kind is not None
        if self.filling is not None:
            self.full.put(self.filling)  # Even if it is abandoned: it ends the shard before it.
        self.full.put(None)
        self.thread.join()
        if kind is None and self.failure:
            raise self.failure

    def _find_room(self, shard: int) -> RowGroup:
        if self.filling is not None and (self.filling.shard != shard or not self.filling.room):
            self.full.put(self.filling)
            self.filling = None
        if self.filling is None:
            self.filling = self.free.get()
            if self.failure:
                raise self.failure
            self.filling.start(shard)
        return self.filling

    def _drain(self) -> None:
        started_s = time.perf_counter()
        try:
            for shard, groups in itertools.groupby(self._take(), operator.attrgetter("shard")):
                tables = map(RowGroup.to_table, groups)
                first = next(tables)
                path = self.folder / f"part-{shard:05d}.parquet"
                write_groups(path, first.schema, itertools.chain([first], tables), self.fingerprint)
        except BaseException as error:
            self.failure = error
            self.free.put(RowGroup())  # Whoever waits for one is to learn of it.
        self.tally.writer_s += time.perf_counter() - started_s

    def _take(self) -> Iterator[RowGroup]:
        """What is full, as it comes; a group is free again once the next one is asked for."""
        while (group := self._wait()) is not None:
            yield group
            self.free.put(group)
        if self.abandoned:
            raise RuntimeError("the shard being written is not to be finished")

    def _wait(self) -> RowGroup | None:
        started_s = time.perf_counter()
        group = self.full.get()
        self.tally.writer_s -= time.perf_counter() - started_s
        return group
