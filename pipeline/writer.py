"""The writing side of an extraction: passes to Parquet shards, in a thread of its own."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import Any

import pyarrow as pa

from pipeline.tables import embeddings_schema, vector_array, write_table
from pipeline.tally import Tally
from pipeline.vit import Pass

_QUEUED_SHARDS = 1


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


class ShardWriter:
    """Collects a shard's passes and writes them when it is whole; an error surfaces on the next call."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], tally: Tally) -> None:
        self.folder, self.fingerprint, self.tally = folder, fingerprint, tally
        self.shard: int | None = None
        self.parts: list[pa.Table] = []
        self.failure: BaseException | None = None
        self.queue: Queue[tuple[int, list[pa.Table]] | None] = Queue(_QUEUED_SHARDS)
        self.thread = threading.Thread(target=self._drain, name="writer", daemon=True)

    def __enter__(self) -> "ShardWriter":
        self.thread.start()
        return self

    def add(self, shard: int, image_ids: list[str], result: Pass) -> None:
        if self.shard not in (None, shard):
            self._send()
        self.shard = shard
        self.parts.append(to_table(image_ids, result))

    def __exit__(self, kind: object, *_rest: object) -> None:
        if kind is None and self.parts:
            self._send()
        self.queue.put(None)
        self.thread.join()
        if kind is None and self.failure:
            raise self.failure

    def _send(self) -> None:
        if self.failure:
            raise self.failure
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
                self.failure = error
            self.tally.writer_s += time.perf_counter() - started_s
