"""The decision: one function that fit, replay and prediction share, and the file that carries it.

score = direction * proxy; an image is escalated unless score <= threshold, so NaN escalates.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import PipelineError, shorten
from pipeline.files import read_json, write_json
from pipeline.learned import NAME, Learned
from pipeline.params.fit import OracleName
from pipeline.proxies import Proxy, get_proxy

FORMAT = 1
# Finite stand-ins for the two ends, since JSON has no infinity: no score exceeds or falls below them.
NEVER_ESCALATE = float(np.finfo(np.float64).max)
ALWAYS_ESCALATE = -NEVER_ESCALATE
# Which parameter settles each of the conditions.
_PARAMETERS = {
    "weights_sha256": "model.weights",
    "transform": "model.weights",
    "precision": "runtime.precision",
    "low_precision": "runtime.low_precision",
    "backend": "runtime.backend",
    "canvas_px": "resolutions.high",
    "low_px": "resolutions.low",
    "high_px": "resolutions.high",
}


@dataclass(frozen=True)
class Policy:
    """All that a later reader needs to decide, and to know whether it may.

    threshold: in score units. calibration: knots from score to expected oracle (see `calibration`).
    made_for: weights digest, sizes, transform, precision and backend that the proxy was measured with.
    certificate: of the rules that promise (see `certify`), with the digests of the images that learned and
    certified.
    coefficients: of proxy `learned`, empty for the others.
    """

    oracle: OracleName
    proxy: str
    direction: int
    threshold: float
    rule: str
    value: float
    calibration: Mapping[str, Any]
    calibration_images: int
    made_for: Mapping[str, Any]
    certificate: Mapping[str, Any] = field(default_factory=dict)
    coefficients: tuple[float, ...] = ()


def proxy_of(policy: Policy) -> Proxy:
    """The function of trace and logits that the policy decides by."""
    return Learned.from_coefficients(policy.coefficients) if policy.proxy == NAME else get_proxy(policy.proxy)


def score(proxy: ArrayLike, direction: int) -> NDArray[np.float64]:
    """Proxy values (N,) turned so that larger means: high resolution matters more."""
    return direction * np.asarray(proxy, dtype=np.float64)


def escalate(scores: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """(N,) booleans. Written as a negation so that NaN, which compares false, escalates."""
    return ~(scores <= threshold)


def is_number(threshold: float) -> bool:
    """False for the two ends, which stand for always and never."""
    return abs(threshold) < NEVER_ESCALATE


def decide(policy: Policy, proxy: ArrayLike) -> NDArray[np.bool_]:
    """Proxy values (N,) of the low pass to (N,) booleans: run the high pass as well?"""
    return escalate(score(proxy, policy.direction), policy.threshold)


def decide_one(policy: Policy, proxy: float) -> bool:
    """`decide` for one image, without arrays, which take long where they are rarely used: behind a pass."""
    return not policy.direction * proxy <= policy.threshold


def write_policy(path: Path, policy: Policy) -> None:
    write_json(path, {"format": FORMAT, **asdict(policy)})


def read_policy(path: Path) -> Policy:
    """Raises PipelineError where the file is missing, of another format or incomplete."""
    document = read_json(path)
    if document.pop("format", None) != FORMAT:
        raise PipelineError(f"{path}: not a policy of format {FORMAT}; run fit again")
    names = {each.name for each in fields(Policy)}
    if document.keys() != names:
        wrong = sorted(document.keys() ^ names)
        raise PipelineError(f"{path}: missing or unknown keys {', '.join(wrong)}; run fit again")
    return Policy(**{**document, "coefficients": tuple(document["coefficients"])})


def check_made_for(policy: Policy, running: Mapping[str, Any], path: Path | None = None) -> None:
    """Refuse a policy, read from `path`, that was fitted under other conditions than this run's."""
    for key, value in running.items():
        fitted = policy.made_for.get(key)
        if fitted != value:
            raise PipelineError(
                f"{path or 'the policy'}: fitted with {key} = {shorten(key, fitted)}, this run has "
                f"{shorten(key, value)}; set {_PARAMETERS[key]} to what it was fitted with, or run extract, "
                "delta and fit under the settings of this run"
            )
