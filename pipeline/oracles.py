"""Oracles: what the proxy is meant to predict, from the table of deltas. Larger: high matters more.

The table may be a polars frame or an Arrow table; only columns by name are asked of it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.params.fit import OracleName


def has_labels(deltas: Any) -> bool:
    """Whether it is known of every image what is right."""
    missing = deltas["low_correct"].null_count  # A method of polars' columns, a number of Arrow's.
    return not (missing() if callable(missing) else missing)


def delta(deltas: Any) -> NDArray[np.float64]:
    """L2 distance between the low and the high embedding."""
    return np.asarray(deltas["delta"].to_numpy())


def disagreement(deltas: Any) -> NDArray[np.float64]:
    """1 where low and high name different classes, else 0."""
    return 1.0 - np.asarray(deltas["agree"].to_numpy())


def benefit(deltas: Any) -> NDArray[np.float64]:
    """1 where high is right and low is wrong, else 0; needs a model that knows the data's classes."""
    low, high = deltas["low_correct"].to_numpy(), deltas["high_correct"].to_numpy()
    if not has_labels(deltas):
        raise PipelineError(
            "fit.oracle: benefit needs labels that the model knows, of every image; stage delta prints why "
            "there are none. Name the weights' classes as model.classes, or use oracle delta or disagreement"
        )
    return np.asarray(high & ~low, dtype=np.float64)


ORACLES: dict[OracleName, Callable[[Any], NDArray[np.float64]]] = {
    "delta": delta,
    "disagreement": disagreement,
    "benefit": benefit,
}
