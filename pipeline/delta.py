"""Oracle deltas: how far the low embedding of an image lies from its high one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.embeddings import check_pair, iter_embeddings, read_set_fingerprint
from pipeline.errors import PipelineError
from pipeline.labels import true_classes
from pipeline.tables import DELTAS, read_table, vectors

_EXAMPLES = 3
_HISTOGRAM_BINS = 50
_TINY = 1e-30
# Rows that are compared at a time: in float64, and all that comes between, they take many times their room.
_ROWS = 4096


class Outcome(NamedTuple):
    """Of one role: image_id (N,), embedding (N, D) float32 and top1 (N,), in the order of the files."""

    image_id: NDArray[np.str_]
    embedding: NDArray[np.float32]
    top1: NDArray[np.int32]


def compute_deltas(images: Path, low: Path, high: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The table of deltas, sorted by image_id, and its fingerprint.

    Rows are joined on image_id, whatever their order in the files; PipelineError where the two roles or
    the images do not hold the same ids, or were not made under the same settings.
    """
    prints = read_set_fingerprint(low, "low"), read_set_fingerprint(high, "high")
    check_pair(*prints)
    labels = pl.from_arrow(read_table(images, ["image_id", "split", "wnid", "label"]))
    assert isinstance(labels, pl.DataFrame)
    labels = labels.sort("image_id")
    low_rows, high_rows = _sorted_by_id(read_outcome(low)), _sorted_by_id(read_outcome(high))
    _check_same_ids("low", low_rows.image_id, "high", high_rows.image_id)
    _check_same_ids("images", labels["image_id"].to_numpy(), "low", low_rows.image_id)
    distances = measure(low_rows, high_rows)
    table = pl.concat([labels, distances], how="horizontal")
    table = _with_correctness(table, prints[0].get("classes")).select(DELTAS.names)
    return table, {"kind": "deltas", "low": prints[0], "high": prints[1]}


def read_outcome(folder: Path) -> Outcome:
    ids, embeddings, top1 = [], [], []
    for batch in iter_embeddings(folder, ["image_id", "embedding", "logits"]):
        ids.append(np.asarray(batch["image_id"].to_pylist(), dtype=str))
        embeddings.append(vectors(batch["embedding"]))
        top1.append(vectors(batch["logits"]).argmax(axis=1).astype(np.int32))
    return Outcome(np.concatenate(ids), np.concatenate(embeddings), np.concatenate(top1))


def measure(low: Outcome, high: Outcome) -> pl.DataFrame:
    """Distances between rows of equal position, in float64.

    delta = |low - high|, delta_relative = delta / |high|, cosine = <low, high> / (|low| |high|).
    """
    blocks = (slice(start, start + _ROWS) for start in range(0, len(low.embedding), _ROWS))
    delta, delta_relative, cosine = np.concatenate(
        [_compare(low.embedding[block], high.embedding[block]) for block in blocks], axis=1
    )
    return pl.DataFrame(
        {
            "delta": delta,
            "delta_relative": delta_relative,
            "cosine": cosine,
            "top1_low": low.top1,
            "top1_high": high.top1,
            "agree": low.top1 == high.top1,
        }
    )


def _compare(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float64]:
    """(3, N): delta, delta_relative and cosine of embeddings (N, D)."""
    first, second = low.astype(np.float64), high.astype(np.float64)
    delta = np.linalg.norm(first - second, axis=1)
    low_norm, high_norm = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    cosine = (first * second).sum(axis=1) / np.maximum(low_norm * high_norm, _TINY)
    return np.stack([delta, delta / np.maximum(high_norm, _TINY), cosine])


def summarise(deltas: pl.DataFrame) -> dict[str, Any]:
    """The numbers of metrics/delta.json; accuracy and its kin only where the model knows the classes."""
    delta = deltas["delta"].to_numpy()
    summary: dict[str, Any] = {
        "images": len(delta),
        "delta": {
            "mean": float(delta.mean()),
            "std": float(delta.std()),
            **{f"p{q}": float(np.quantile(delta, q / 100)) for q in (50, 90, 99)},
            "max": float(delta.max()),
        },
        "agreement": float(deltas["agree"].mean()),  # type: ignore[arg-type]
    }
    if deltas["low_correct"].null_count():
        return summary
    low, high = deltas["low_correct"].to_numpy(), deltas["high_correct"].to_numpy()
    summary["accuracy"] = {"low": float(low.mean()), "high": float(high.mean())}
    summary["benefit_rate"] = float((high & ~low).mean())
    summary["breakage_rate"] = float((low & ~high).mean())
    return summary


def histogram(deltas: pl.DataFrame) -> pl.DataFrame:
    """Counts per bin of equal width from 0 to the maximum; `delta` is the bin's centre."""
    delta = deltas["delta"].to_numpy()
    counts, edges = np.histogram(delta, bins=_HISTOGRAM_BINS, range=(0, float(delta.max()) or 1.0))
    return pl.DataFrame({"delta": (edges[1:] + edges[:-1]) / 2, "images": counts})


def _sorted_by_id(rows: Outcome) -> Outcome:
    order = np.argsort(rows.image_id, kind="stable")
    return Outcome(rows.image_id[order], rows.embedding[order], rows.top1[order])


def _check_same_ids(
    first_name: str, first: NDArray[np.str_], second_name: str, second: NDArray[np.str_]
) -> None:
    for name, ids in ((first_name, first), (second_name, second)):
        unique, counts = np.unique(ids, return_counts=True)
        if len(unique) < len(ids):
            raise PipelineError(
                f"{name}: image_id not unique: {_examples(unique[counts > 1])}; run extract again"
            )
    if len(first) == len(second) and bool((first == second).all()):
        return
    only_first, only_second = np.setdiff1d(first, second), np.setdiff1d(second, first)
    raise PipelineError(
        f"{first_name} has {len(first)} images, {second_name} has {len(second)}; "
        f"only in {first_name}: {len(only_first)} {_examples(only_first)}, "
        f"only in {second_name}: {len(only_second)} {_examples(only_second)}; "
        "run extract for both roles again"
    )


def _examples(ids: NDArray[np.str_]) -> str:
    shown = ", ".join(str(name) for name in ids[:_EXAMPLES])
    return f"({shown}{', …' if len(ids) > _EXAMPLES else ''})" if len(ids) else ""


def _with_correctness(table: pl.DataFrame, classes: Sequence[str] | None) -> pl.DataFrame:
    """Add low_correct and high_correct; null where the model does not know all of the data's classes."""
    truth = true_classes(table["wnid"].to_list(), classes)
    expected = pl.lit(None, pl.Int64) if truth is None else pl.Series(truth)
    return table.with_columns(
        low_correct=pl.col("top1_low") == expected, high_correct=pl.col("top1_high") == expected
    )


def to_arrow(deltas: pl.DataFrame) -> pa.Table:
    return deltas.to_arrow().cast(DELTAS)
