"""A threshold with a guarantee: Learn-then-Test over a fixed sequence, with the exact binomial tail.

Controlled is the share of images that stay low and are harmed by it, P(not escalated and harm) <= alpha, with
probability of at least `confidence` over the draw of the images that certify. (Angelopoulos et al. 2021,
"Learn then Test"; the risk is a joint one, so that no harm is hidden by escalating little.)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from pipeline.calibration import Floats
from pipeline.errors import PipelineError
from pipeline.policy import ALWAYS_ESCALATE, NEVER_ESCALATE
from pipeline.split import rank

Bools = NDArray[np.bool_]

_CANDIDATES = 200
MOST_IMAGES = 200_000


@dataclass(frozen=True)
class Certificate:
    """threshold: in score units, ALWAYS_ESCALATE where none could be certified.

    harmful: harmed images among the `images` that certified, at this threshold or, where none was certified,
    at the first one tried. risk_bound: upper bound of the risk at `confidence`, had this threshold been fixed
    beforehand; these images chose it, so that only `alpha` is promised. tested: thresholds tried, the one
    that failed included. needed_images: how many would certify the first threshold if harm went on as
    observed; None where certified, or where not even MOST_IMAGES would do. helped: images that staying low
    puts right, which rule accuracy_drop weighs against the harmed; None where they do not count.
    """

    threshold: float
    certified: bool
    alpha: float
    confidence: float
    images: int
    harmful: int
    risk_bound: float
    tested: int
    needed_images: int | None
    helped: int | None = None


def describe_promise(certificate: Mapping[str, Any]) -> str:
    """Of a certificate's document: what is limited, and to how much."""
    what = "risk" if certificate.get("helped") is None else "lost accuracy"
    return f"{what} at most {certificate['alpha']} at confidence {certificate['confidence']}"


def describe_ground(certificate: Mapping[str, Any]) -> str:
    """What the promise rests on."""
    helped = certificate.get("helped")
    balance = "" if helped is None else f" and {helped:,} helped"
    return f"{certificate['harmful']:,} harmed{balance} of {certificate['images']:,} images"


def describe_remedy(certificate: Mapping[str, Any], learned: int) -> str:
    """How many calibration images would certify the first threshold, of one that was not certified.

    learned: images that learn beside those that certify; more of these take as many more of those.
    """
    if certificate["needed_images"]:
        needed = math.ceil(certificate["needed_images"] * (1 + learned / certificate["images"]))
        return f"about {needed:,} calibration images would do"
    balance = certificate["harmful"] - (certificate.get("helped") or 0)
    # Below the limit enough images always pass; the search only ends before them.
    if balance < certificate["alpha"] * certificate["images"]:
        return f"more than {MOST_IMAGES:,} would be needed"
    return "no number of images would do"


def list_candidates(scores: Floats) -> Floats:
    """Thresholds from escalating nearly all to escalating none, at quantiles of scores (N,).

    The scores must be of images other than those that certify: the sequence has to be fixed beforehand.
    """
    shares = np.arange(1, _CANDIDATES) / _CANDIDATES
    inner = np.quantile(scores[np.isfinite(scores)], shares, method="lower")
    return np.append(np.unique(inner), NEVER_ESCALATE)


def certify(
    scores: Floats, harmed: Bools, candidates: Floats, alpha: float, confidence: float
) -> Certificate:
    """The last of the rising `candidates` up to which all are certified on scores (N,) and harmed (N,)."""
    # harmed: whether staying low would harm. NaN sorts last and so is never below a candidate: it escalates.
    harmful = np.searchsorted(np.sort(scores[harmed]), candidates, side="right")
    passed = np.asarray(binom.cdf(harmful, len(scores), alpha) <= 1 - confidence)
    accepted = len(passed) if passed.all() else int(np.argmin(passed))
    index = max(accepted - 1, 0)
    return Certificate(
        threshold=float(candidates[index]) if accepted else ALWAYS_ESCALATE,
        certified=accepted > 0,
        alpha=alpha,
        confidence=confidence,
        images=len(scores),
        harmful=int(harmful[index]),
        risk_bound=risk_bound(int(harmful[index]), len(scores), confidence) if accepted else 0.0,
        tested=min(accepted + 1, len(candidates)),
        needed_images=None if accepted else count_needed(int(harmful[0]), len(scores), alpha, confidence),
    )


def risk_bound(harmful: int, images: int, confidence: float) -> float:
    """Exact one-sided upper bound of a share (Clopper and Pearson 1934), of a threshold fixed beforehand."""
    return 1.0 if harmful == images else float(beta.ppf(confidence, harmful + 1, images - harmful))


def count_needed(harmful: int, images: int, alpha: float, confidence: float) -> int | None:
    """The least number of images of which the share `harmful / images` would pass.

    None where more than MOST_IMAGES would be needed; a share of `alpha` or more passes with no number.
    """
    counts = np.arange(max(images, 1), MOST_IMAGES + 1)
    expected = np.floor(counts * (harmful / max(images, 1)))
    passing = np.flatnonzero(binom.cdf(expected, counts, alpha) <= 1 - confidence)
    return int(counts[passing[0]]) if len(passing) else None


def draw_order(image_ids: Sequence[str], seed: int) -> list[int]:
    """Indices of the images in an order drawn by hash."""
    return sorted(range(len(image_ids)), key=lambda index: rank("certify", seed, image_ids[index]))


def set_apart(image_ids: Sequence[str], share: float, seed: int) -> Bools:
    """(N,) True for round(share * N) images, drawn by hash, that learn; the others certify.

    Raises PipelineError where fewer than two would learn.
    """
    if round(share * len(image_ids)) < 2:
        raise PipelineError(
            f"fit.threshold.rule: a certified one learns from {share:g} of the calibration images and "
            f"certifies by the others; {len(image_ids)} are too few; set data.calibration_images to "
            f"{round(2 / share)} or more"
        )
    chosen = np.zeros(len(image_ids), dtype=bool)
    chosen[draw_order(image_ids, seed)[: round(share * len(image_ids))]] = True
    return chosen
