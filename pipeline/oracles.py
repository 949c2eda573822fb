"""Oracles: what the proxy is meant to predict, from the table of deltas. Larger: high matters more."""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.params.fit import OracleName


def delta(deltas: pl.DataFrame) -> NDArray[np.float64]:
    """L2 distance between the low and the high embedding."""
    return deltas["delta"].to_numpy()


def disagreement(deltas: pl.DataFrame) -> NDArray[np.float64]:
    """1 where low and high name different classes, else 0."""
    return (~deltas["agree"]).cast(pl.Float64).to_numpy()


def benefit(deltas: pl.DataFrame) -> NDArray[np.float64]:
    """1 where high is right and low is wrong, else 0; needs a model that knows the data's classes."""
    if deltas["low_correct"].null_count():
        raise PipelineError(
            "fit.oracle: benefit needs labels that the model knows; these weights name no classes of the "
            "data. Use delta or disagreement, or weights whose metadata lists their classes"
        )
    return (deltas["high_correct"] & ~deltas["low_correct"]).cast(pl.Float64).to_numpy()


ORACLES: dict[OracleName, Callable[[pl.DataFrame], NDArray[np.float64]]] = {
    "delta": delta,
    "disagreement": disagreement,
    "benefit": benefit,
}
