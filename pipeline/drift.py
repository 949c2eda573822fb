"""Whether new low-pass scores look like those of the calibration images.

Three tests share the level alpha, a third for each (Bonferroni), so that images drawn as the calibration
images were raise an alarm with a probability of about alpha at most. They take the images as independent
draws: frames of one video are not, and raise more. So do fewer than a hundred calibration images from which
`learned` has learned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2_contingency, fisher_exact, ks_2samp, kstwo

from pipeline.certify import describe_promise
from pipeline.embeddings import CONDITIONS, precisions_of
from pipeline.errors import PipelineError, shorten
from pipeline.policy import escalate

Floats = NDArray[np.float64]

MIN_IMAGES = 20
# The customary reading of the population stability index: below stable, between moderate, above large.
_PSI_STABLE, _PSI_LARGE = 0.1, 0.25
_TESTS = 3
_BINS = 10


@dataclass(frozen=True)
class Drift:
    """The new images held against the calibration images (`reference`); shares from 0 to 1.

    unscored: images whose score is NaN; they escalate, and are left out of ks and psi. rate: share escalated,
    that of the new images with its exact interval (Clopper and Pearson 1934) at confidence 1 - alpha.
    rate_p_value: Fisher's exact test, two-sided. ks: two-sample Kolmogorov-Smirnov; ks_limit is the distance
    beyond which it finds a shift. psi_p_value: chi-square test of counts between the deciles of both;
    between those of the reference alone its own counts would be fixed, and no draws.
    """

    alpha: float
    reference_images: int
    reference_unscored: int
    reference_rate: float
    new_images: int
    new_unscored: int
    new_rate: float
    new_rate_ci_low: float
    new_rate_ci_high: float
    rate_p_value: float
    ks_distance: float
    ks_p_value: float
    ks_limit: float
    psi: float
    psi_p_value: float

    @property
    def findings(self) -> tuple[str, ...]:
        """The tests that found a shift, by name; empty where none did.

        The index counts above 0.25, and only where chance does not explain it: between 20 images and many it
        is 0.3 on average without any shift.
        """
        level = self.alpha / _TESTS
        found = {
            "Kolmogorov-Smirnov": self.ks_p_value < level,
            "escalation rate": self.rate_p_value < level,
            "stability index": self.psi > _PSI_LARGE and self.psi_p_value < level,
        }
        return tuple(name for name, shifted in found.items() if shifted)

    @property
    def size(self) -> str:
        """small, moderate or large, by the index: with many images the tests find trifles too."""
        if self.psi < _PSI_STABLE:
            return "small"
        return "moderate" if self.psi <= _PSI_LARGE else "large"


def check_conditions(made: Mapping[str, Any], made_for: Mapping[str, Any], where: str) -> None:
    """Raise PipelineError where low embeddings of the fingerprint `made` are not what a policy was made for.

    The backend may differ: the engines agree within their tolerance.
    """
    found = {key: made.get(key) for key in CONDITIONS if key != "backend"} | {"low_px": made.get("size_px")}
    found |= precisions_of(made)
    for key, value in found.items():
        if made_for.get(key) != value:
            raise PipelineError(
                f"{where}: made with {key} = {shorten(key, value)}, "
                f"the policy is for {shorten(key, made_for.get(key))}; "
                "run extract low on these images under the policy's settings"
            )


def check_enough(scores: Floats, where: str) -> None:
    """Raise PipelineError where fewer than MIN_IMAGES of the scores (N,) are numbers."""
    scored = int((~np.isnan(scores)).sum())
    if scored < MIN_IMAGES:
        raise PipelineError(
            f"{where}: {scored} of {len(scores)} images have a score that is a number, expected {MIN_IMAGES} "
            "or more; fewer say nothing of a shift; extract more images"
        )


def count_by_decile(reference: Floats, new: Floats, of: Floats) -> NDArray[np.int64]:
    """Images (2, K) of `reference` (M,) and `new` (N,), without NaN, between the deciles of `of`.

    The outer bins are open. K is 10, less where scores tie; no bin is empty in both.
    """
    edges = np.unique(np.quantile(of, np.arange(1, _BINS) / _BINS, method="lower"))
    counts = np.stack(
        [np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1) for scores in (reference, new)]
    )
    return counts[:, counts.any(axis=0)]


def stability_index(counts: NDArray[np.int64]) -> float:
    """Population stability index of counts (2, K): the sum over bins of (q - p) ln(q / p).

    p and q are a bin's shares in the first and in the second row. To keep both above zero, K/2 images are
    added to either row, spread over the bins as the two rows together are; so rows of equal shape have the
    index 0, whatever their sums.
    """
    added = counts.shape[1] / 2
    spread = added * counts.sum(axis=0) / counts.sum()
    p, q = (counts + spread) / (counts.sum(axis=1, keepdims=True) + added)
    return float(((q - p) * np.log(q / p)).sum())


def compare_scores(reference: Floats, new: Floats, threshold: float, alpha: float) -> Drift:
    """Hold the scores of new images (N,) against those of the calibration images (M,); NaN allowed.

    Both must pass `check_enough`. Where the threshold was set as a quantile of `reference`, Fisher's test
    stays exact, up to one image: it is then the exceedance test.
    """
    escalated = [escalate(scores, threshold) for scores in (reference, new)]
    hits, misses = [int(each.sum()) for each in escalated], [int((~each).sum()) for each in escalated]
    interval = binomtest(hits[1], len(new)).proportion_ci(1 - alpha, method="exact")
    scored = [scores[~np.isnan(scores)] for scores in (reference, new)]
    # Not the exact p-value, which is slow for large sets: the one-sample law at the effective number.
    ks = ks_2samp(*scored, method="asymp")
    effective = np.round(1 / sum(1 / len(scores) for scores in scored))
    pooled = count_by_decile(scored[0], scored[1], np.concatenate(scored))
    return Drift(
        alpha=alpha,
        reference_images=len(reference),
        reference_unscored=len(reference) - len(scored[0]),
        reference_rate=hits[0] / len(reference),
        new_images=len(new),
        new_unscored=len(new) - len(scored[1]),
        new_rate=hits[1] / len(new),
        new_rate_ci_low=float(interval.low),
        new_rate_ci_high=float(interval.high),
        rate_p_value=float(fisher_exact([hits, misses]).pvalue),
        ks_distance=float(ks.statistic),
        ks_p_value=float(ks.pvalue),
        ks_limit=float(kstwo.isf(alpha / _TESTS, effective)),
        psi=stability_index(count_by_decile(scored[0], scored[1], scored[0])),
        psi_p_value=float(chi2_contingency(pooled, correction=False).pvalue),
    )


def describe(drift: Drift) -> list[str]:
    """The numbers, a line for each statistic."""
    images = f"{drift.reference_images} calibration images, {drift.new_images} new ones"
    if unscored := drift.reference_unscored + drift.new_unscored:
        images += f"; {unscored} without a score escalate and are left out of the distributions"
    interval = f"[{drift.new_rate_ci_low:.2%}, {drift.new_rate_ci_high:.2%}]"
    rate = (
        f"escalation rate {drift.reference_rate:.2%}, now {drift.new_rate:.2%} {interval} at confidence "
        f"{1 - drift.alpha:g}, Fisher p = {drift.rate_p_value:.2g}"
    )
    ks = (
        f"Kolmogorov-Smirnov distance {drift.ks_distance:.3f}, p = {drift.ks_p_value:.2g}; "
        f"finds a shift from {drift.ks_limit:.3f}"
    )
    psi = (
        f"population stability index {drift.psi:.3f}, chi-square p = {drift.psi_p_value:.2g}; customarily "
        f"stable below {_PSI_STABLE}, large above {_PSI_LARGE}"
    )
    return [images, rate, ks, psi, f"p counts below {drift.alpha / _TESTS:.2g}, a third of {drift.alpha:g}"]


def conclude(drift: Drift, certificate: Mapping[str, Any]) -> str:
    """One sentence: do the policy's certificate and its escalation rate still apply?

    No test of scores can prove that they do: that takes high's answers to the new images. Noise, say, can
    ruin both passes and hardly move the scores (tests/test_drift.py). A small shift ends the certificate too,
    since it is for images drawn as the calibration images were; its size is in the scores, not in the harm.
    """
    promise = f"the fitted escalation rate of {drift.reference_rate:.2%} (the policy holds no certificate)"
    if certificate.get("certified"):
        promise = f"the certificate ({describe_promise(certificate)})"
    if not drift.findings:
        return (
            f"no shift found: nothing speaks against {promise}, though scores alone cannot prove it, and "
            "what leaves them as they are goes unseen"
        )
    return (
        f"the scores have shifted ({drift.size} by PSI, found by {', '.join(drift.findings)}): "
        f"{promise} does NOT apply to these images; run extract, delta and fit on images like them"
    )
