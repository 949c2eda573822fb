"""Every engine's answers against those of eager float32: decisions under one policy, and outputs."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cascade import Cascade
from pipeline.fidelity import measure_errors, run_all
from pipeline.policy import decide

# Its answers are those that the others' are compared with.
REFERENCE = "eager float32"

ByName = dict[str, float]


def compare_answers(
    cascades: Mapping[str, Cascade], scores: Mapping[str, NDArray[np.float64]], canvases: Tensor
) -> dict[str, ByName]:
    """By system: `decision_agreement` (share) and `largest_error` (as a share of the largest value).

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
            largest[name] = float(np.max([largest[name], *errors.values()]))  # NaN where one is.
    return {
        "decision_agreement": {
            name: float((found == decided[REFERENCE]).mean()) for name, found in decided.items()
        },
        "largest_error": largest,
    }


def worst(found: Iterable[Mapping[str, ByName]]) -> dict[str, ByName]:
    """Of what `compare_answers` says of several scenarios: the least agreement, the largest error."""
    shares, errors = zip(
        *((each["decision_agreement"], each["largest_error"]) for each in found), strict=True
    )
    return {
        "decision_agreement": {name: min(each[name] for each in shares) for name in shares[0]},
        "largest_error": {name: float(np.max([each[name] for each in errors])) for name in errors[0]},
    }
