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
