"""Embedding sets written by hand, for the tests of what reads them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.tables import embeddings_schema, vector_array, write_table

FINGERPRINT = {
    "kind": "embeddings",
    "canvas_px": 64,
    "trace_states": 3,
    "weights_sha256": "w",
    "classes": None,
    "transform": "t",
    "precision": "float32",
    "backend": "eager",
    "images_sha256": "i",
}


def write_set(folder: Path, role: str, ids, embedding, logits, trace=None, **fingerprint) -> Path:
    """One shard; `trace` (N, 3, D) is zero unless given."""
    embedding, logits = np.asarray(embedding, np.float32), np.asarray(logits, np.float32)
    count, width = embedding.shape
    trace = np.zeros((count, 3, width)) if trace is None else np.asarray(trace)
    columns = [
        pa.array(ids),
        vector_array(embedding),
        vector_array(trace.reshape(count, -1).astype(np.float32)),
        vector_array(logits),
    ]
    table = pa.Table.from_arrays(columns, schema=embeddings_schema(width, 3, logits.shape[1]))
    sizes = {"low": 32, "high": 64}
    made = FINGERPRINT | {"role": role, "size_px": sizes[role]} | fingerprint
    write_table(folder / f"part-{len(list(folder.glob('*'))):05d}.parquet", table, made)
    return folder
