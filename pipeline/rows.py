"""The table of predictions, written row by row: a CSV or a Parquet file that appears whole or not at all."""

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.predict import Row
from pipeline.tables import ROW_GROUP_ROWS, write_groups

CLASS = "class"
PREDICTIONS = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field(CLASS, pa.string()),
        pa.field("top1", pa.int32(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("escalated", pa.bool_(), nullable=False),
    ]
)


def check_ending(path: Path) -> None:
    """Raises PipelineError where no table can be written under this name."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise PipelineError(f"{path}: no kind of table is known by this ending; expected .csv or .parquet")


def write_rows(path: Path, rows: Iterable[Row], with_class: bool, fingerprint: Mapping[str, Any]) -> None:
    """Take the rows as they come, so that memory does not grow with their number.

    with_class: whether there is a column for it. fingerprint: what made them; a CSV has no place for it.
    """
    check_ending(path)
    columns = [name for name in PREDICTIONS.names if with_class or name != CLASS]
    values = (dict(zip(PREDICTIONS.names, row, strict=True)) for row in rows)
    if path.suffix.lower() == ".csv":
        with whole_file(path) as temporary:
            _write_csv(temporary, values, columns)
    else:
        schema = pa.schema([PREDICTIONS.field(name) for name in columns])
        write_groups(path, schema, _take_groups(values, schema), fingerprint)


def _write_csv(path: Path, rows: Iterator[dict[str, Any]], columns: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            # Not as Python spells it: every reader of tables takes lower case for a boolean.
            writer.writerow(row | {"escalated": str(row["escalated"]).lower()})


def _take_groups(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    while group := list(itertools.islice(rows, ROW_GROUP_ROWS)):
        yield pa.Table.from_pylist(group, schema=schema)
