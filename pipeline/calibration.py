"""The monotone map from score to expected oracle, as `pipeline.regression` learns it.

Knots (x, y) describe it: `isotonic` interpolates between them and is flat outside; `linear` is the one
line through its two knots.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["isotonic", "linear"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    kind: Kind
    x: tuple[float, ...]
    y: tuple[float, ...]


def expected_oracle(calibration: Calibration, scores: Floats) -> Floats:
    """Scores (N,) in oracle units (N,)."""
    x, y = np.array(calibration.x), np.array(calibration.y)
    if calibration.kind == "isotonic":
        return np.asarray(np.interp(scores, x, y))
    slope = (y[1] - y[0]) / (x[1] - x[0])
    return np.asarray(y[0] + slope * (scores - x[0]))


def last_below(calibration: Calibration, limit: float) -> float:
    """The largest score that expects at most `limit`; infinite where all do, or none does."""
    x, y = np.array(calibration.x), np.array(calibration.y)
    if calibration.kind == "linear" and y[1] > y[0]:
        return float(x[0] + (limit - y[0]) * (x[1] - x[0]) / (y[1] - y[0]))
    knots = int((y <= limit).sum())
    if knots in (0, len(y)):
        return np.inf if knots else -np.inf
    between = [knots - 1, knots]
    return float(np.interp(limit, y[between], x[between]))
