import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import PipelineError
from pipeline.tables import (
    count_rows,
    embeddings_schema,
    iter_batches,
    read_fingerprint,
    read_table,
    vector_array,
    vectors,
    write_table,
)

SCHEMA = embeddings_schema(width=2, states=3, classes=4)


def shard(rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    columns = [pa.array([f"id{i}" for i in range(rows)])]
    columns += [vector_array(rng.normal(size=(rows, size)).astype(np.float32)) for size in (2, 6, 4)]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def test_vectors_are_fixed_size_lists_and_come_back_bit_for_bit(tmp_path):
    write_table(tmp_path / "t.parquet", shard(5), {"role": "low"})
    (batch,) = iter_batches(tmp_path / "t.parquet", ["trace"])
    assert batch.schema.field("trace").type == pa.list_(pa.field("item", pa.float32(), nullable=False), 6)
    assert vectors(batch["trace"]).tobytes() == vectors(shard(5)["trace"].combine_chunks()).tobytes()


def test_vectors_of_a_slice_are_those_of_the_slice(tmp_path):
    write_table(tmp_path / "t.parquet", shard(10), {})
    parts = [vectors(batch["trace"]) for batch in iter_batches(tmp_path / "t.parquet", ["trace"], rows=3)]
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), vectors(shard(10)["trace"].combine_chunks()))


def test_the_file_is_written_as_specified(tmp_path):
    write_table(tmp_path / "t.parquet", shard(5000), {"role": "low"})
    metadata = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2048, 2048, 904]
    for column in range(4):
        chunk = metadata.row_group(0).column(column)
        assert chunk.compression == "ZSTD"
        assert "RLE_DICTIONARY" not in chunk.encodings
        assert ("BYTE_STREAM_SPLIT" in chunk.encodings) == (column > 0)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / name, shard(100), {"role": "low", "px": 32})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_flipped_bit_in_the_pages_is_noticed(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, shard(500), {})
    whole = path.read_bytes()
    noticed = 0
    positions = np.linspace(4, 500 * 12 * 4 * 0.8, 25).astype(int)
    for position in positions:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        try:
            read_table(path, SCHEMA.names)
        except PipelineError:
            noticed += 1
    assert noticed == len(positions)


def test_fingerprint_and_rows(tmp_path):
    write_table(tmp_path / "t.parquet", shard(3), {"role": "high", "classes": ["n1"]})
    assert read_fingerprint(tmp_path / "t.parquet") == {"role": "high", "classes": ["n1"]}
    assert count_rows(tmp_path / "t.parquet") == 3


def test_what_is_no_table_of_ours_is_refused_with_a_reason(tmp_path):
    with pytest.raises(PipelineError, match="not found"):
        count_rows(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello, this is no Parquet file")
    with pytest.raises(PipelineError, match="not a whole Parquet file"):
        count_rows(tmp_path / "text.parquet")
    pq.write_table(shard(1), tmp_path / "foreign.parquet")
    with pytest.raises(PipelineError, match="carries no fingerprint"):
        read_fingerprint(tmp_path / "foreign.parquet")
    write_table(tmp_path / "t.parquet", shard(1), {})
    with pytest.raises(PipelineError, match="column 'delta' is missing"):
        list(iter_batches(tmp_path / "t.parquet", ["delta"]))
    with pytest.raises(PipelineError, match="column 'delta' is missing"):
        read_table(tmp_path / "t.parquet", ["delta"])
