"""Every engine's answers against those of eager float32: decisions under one policy, and outputs."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cascade import Cascade
from pipeline.engines.base import TOLERANCE
from pipeline.fidelity import measure_errors, run_all
from pipeline.policy import decide

# Its answers are those that the others' are compared with.
REFERENCE = "eager float32"

ByName = dict[str, float]


def compare_answers(
    cascades: Mapping[str, Cascade], scores: Mapping[str, NDArray[np.float64]], canvases: Tensor
) -> dict[str, ByName]:
    """By system: `decision_agreement` (share), `largest_error` and its `tolerance` (of the largest value).

    scores: proxies (N,) of the low pass, all decided on by the reference's policy. canvases: uint8
    (N, 3, S, S), on which logits, embedding and trace of every role are compared.
    """
    policy = cascades[REFERENCE].policy
    decided = {name: decide(policy, values) for name, values in scores.items()}
    largest = dict.fromkeys(cascades, 0.0)
    for role, engine in cascades[REFERENCE].engines.items():
        expected = run_all(engine, canvases)
        for name, cascade in cascades.items():
            errors = measure_errors(run_all(cascade.engines[role], canvases), expected)
            largest[name] = max(largest[name], *errors.values())
    return {
        "decision_agreement": {
            name: float((found == decided[REFERENCE]).mean()) for name, found in decided.items()
        },
        "largest_error": largest,
        "tolerance": {
            name: TOLERANCE[cascade.engines["low"].runtime.precision] for name, cascade in cascades.items()
        },
    }
