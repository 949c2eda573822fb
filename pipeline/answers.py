"""The policies by name, and what each of them answers."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.params.model import Role

PolicyName = Literal["static_low", "static_mid", "static_high", "adaptive"]
# The engines that each policy runs, in the order in which results are shown.
NEEDS: Mapping[PolicyName, tuple[Role, ...]] = {
    "static_low": ("low",),
    "static_mid": ("mid",),
    "static_high": ("high",),
    "adaptive": ("low", "high"),
}


class Answers(NamedTuple):
    """top1 (N,) int64 class indices and escalated (N,) booleans, in the order of the input."""

    top1: NDArray[np.int64]
    escalated: NDArray[np.bool_]
