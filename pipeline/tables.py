"""Parquet tables: schemas, atomic writing with page checksums, and reading that verifies them.

Every file carries the fingerprint of what made it (a JSON object) in its metadata.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.files import whole_file

ROW_GROUP_ROWS = 2048
# Of the images in a row group, which is read at once.
ROW_GROUP_BYTES = 64 << 20
_FINGERPRINT = b"adaptive_vit"

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("wnid", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("jpeg", pa.binary(), nullable=False),
    ]
)
DELTAS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("delta", pa.float64(), nullable=False),
        pa.field("delta_relative", pa.float64(), nullable=False),
        pa.field("cosine", pa.float64(), nullable=False),
        pa.field("top1_low", pa.int32(), nullable=False),
        pa.field("top1_high", pa.int32(), nullable=False),
        pa.field("agree", pa.bool_(), nullable=False),
        pa.field("low_correct", pa.bool_()),
        pa.field("high_correct", pa.bool_()),
    ]
)
REPLAY = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("scenario", pa.string(), nullable=False),
        pa.field("policy", pa.string(), nullable=False),
        pa.field("latency_ms", pa.float64(), nullable=False),
        pa.field("escalated", pa.bool_(), nullable=False),
        pa.field("top1", pa.int32(), nullable=False),
    ]
)


def embeddings_schema(width: int, states: int, classes: int) -> pa.Schema:
    """Schema of an embedding shard: D = `width`, L+1 = `states`, C = `classes`; float32 vectors."""

    def vector(name: str, size: int) -> pa.Field:
        return pa.field(name, pa.list_(pa.field("item", pa.float32(), nullable=False), size), nullable=False)

    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            vector("embedding", width),
            vector("trace", states * width),
            vector("logits", classes),
        ]
    )


def write_table(path: Path, table: pa.Table, fingerprint: Mapping[str, Any]) -> None:
    """Write `table` whole or not at all; the same table and fingerprint give the same bytes."""
    groups = (table.slice(first, ROW_GROUP_ROWS) for first in range(0, len(table), ROW_GROUP_ROWS))
    write_groups(path, table.schema, groups, fingerprint)


def write_groups(
    path: Path, schema: pa.Schema, groups: Iterable[pa.Table], fingerprint: Mapping[str, Any]
) -> None:
    """The same for row groups of at most ROW_GROUP_ROWS, which are taken one after another."""
    schema = schema.with_metadata({_FINGERPRINT: json.dumps(fingerprint, sort_keys=True).encode()})
    with (
        whole_file(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            use_dictionary=False,
            use_byte_stream_split=_float_columns(schema),
            write_statistics=False,
            write_page_checksum=True,
        ) as writer,
    ):
        for group in groups:
            writer.write_table(group.replace_schema_metadata(schema.metadata))


def open_table(path: Path) -> pq.ParquetFile:
    """Open for verified reading; raises PipelineError where the file is missing or no Parquet."""
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run the stage that writes it (see dvc.yaml)") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise PipelineError(
            f"{path}: not a whole Parquet file ({_first_line(error)}); write it again"
        ) from None


def read_fingerprint(path: Path) -> dict[str, Any]:
    with open_table(path) as file:
        metadata = file.schema_arrow.metadata or {}
    if _FINGERPRINT not in metadata:
        raise PipelineError(
            f"{path}: carries no fingerprint; expected a table that a stage of this project wrote"
        )
    fingerprint: dict[str, Any] = json.loads(metadata[_FINGERPRINT])
    return fingerprint


def iter_batches(path: Path, columns: Sequence[str], rows: int = ROW_GROUP_ROWS) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows`; memory stays that of one row group. A damaged page raises PipelineError."""
    with open_table(path) as file:
        _check_columns(path, file, columns)
        try:
            # Group by group: across groups, pyarrow's own iteration keeps more and more memory.
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=list(columns))
                yield from table.to_batches(max_chunksize=rows)
        except (OSError, pa.ArrowInvalid) as error:
            raise PipelineError(f"{path}: damaged ({_first_line(error)}); write it again") from None


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    with open_table(path) as file:
        _check_columns(path, file, columns)
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
    return pa.Table.from_batches(iter_batches(path, columns), schema=schema)


def _check_columns(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise PipelineError(f"{path}: column {missing[0]!r} is missing; found {file.schema_arrow.names}")


def count_rows(path: Path) -> int:
    with open_table(path) as file:
        rows: int = file.metadata.num_rows
    return rows


def vectors(array: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """A fixed-size list column of one batch as an (N, size) float32 array, without a copy."""
    flat: NDArray[np.float32] = array.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(array), array.type.list_size)


def vector_array(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """The reverse of `vectors`: (N, size) float32 to a fixed-size list column."""
    item = pa.field("item", pa.float32(), nullable=False)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(item, values.shape[1]))


def _float_columns(schema: pa.Schema) -> list[str]:
    """Parquet paths of the float columns, for byte-stream-split."""
    plain = [field.name for field in schema if pa.types.is_floating(field.type)]
    lists = [f"{field.name}.list.element" for field in schema if pa.types.is_fixed_size_list(field.type)]
    return plain + lists


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
