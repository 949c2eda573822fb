"""The deltas of all images beside what the low pass says of them."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipeline.embeddings import measure_proxies
from pipeline.errors import PipelineError
from pipeline.lineage import check_deltas
from pipeline.proxies import Proxy
from pipeline.tables import read_table

_COLUMNS = ["image_id", "split", "delta", "agree", "low_correct", "high_correct"]


def join_proxies(low: Path, deltas: Path, functions: Mapping[str, Proxy]) -> pl.DataFrame:
    """The deltas with a column for each function of the low pass, on image_id, in the order of the deltas.

    Refuses embeddings that the deltas were not made from, so that nothing mixes two models.
    """
    check_deltas(deltas, low)
    table = pl.from_arrow(read_table(deltas, _COLUMNS))
    assert isinstance(table, pl.DataFrame)
    ids, values = measure_proxies(low, functions)
    proxies = pl.DataFrame({"image_id": ids, **values})
    joined = table.join(proxies, on="image_id", how="left", validate="1:1", maintain_order="left")
    unmatched = joined[next(iter(functions))].null_count()
    if unmatched or len(proxies) != len(table):
        raise PipelineError(
            f"{low} has {len(proxies)} images, {deltas} has {len(table)}, {unmatched} of them without a "
            "low embedding; run extract and delta again"
        )
    return joined
