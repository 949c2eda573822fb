"""A certified limit on lost accuracy: Learn-then-Test with bets on a mean that may also be a gain.

Staying low loses a right answer (1), wins one (-1) or changes nothing (0), so that the exact binomial tail of
`certify` does not apply. Here a gambler bets, image by image, that the mean loss is below the limit; were it
above, no strategy would be expected to grow the capital, and reaching 1 / (1 - confidence) is as unlikely as
1 - confidence. (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting".)
"""

from dataclasses import replace

import numpy as np

from pipeline.calibration import Floats
from pipeline.certify import MOST_IMAGES, Certificate
from pipeline.policy import ALWAYS_ESCALATE, escalate

# Of the largest bet that cannot ruin: one loss leaves a quarter of the capital.
_BOLDEST = 0.75
_BISECTIONS = 30


def certify_drop(
    scores: Floats, losses: Floats, candidates: Floats, alpha: float, confidence: float
) -> Certificate:
    """The last of the rising `candidates` up to which all lose at most `alpha` per image.

    scores (N,) and losses (N,), each -1, 0 or 1, in an order drawn without regard to either.
    """
    accepted = 0
    for candidate in candidates:
        if not is_below(_lost(scores, losses, candidate), alpha, confidence):
            break
        accepted += 1
    threshold = float(candidates[max(accepted - 1, 0)])
    lost = _lost(scores, losses, threshold)
    found = Certificate(
        threshold=threshold,
        certified=True,
        alpha=alpha,
        confidence=confidence,
        images=len(scores),
        harmful=int((lost > 0).sum()),
        helped=int((lost < 0).sum()),
        risk_bound=mean_bound(lost, confidence),
        tested=min(accepted + 1, len(candidates)),
        needed_images=None,
    )
    if accepted:
        return found
    needed = _count_needed(lost, alpha, confidence)
    return replace(found, threshold=ALWAYS_ESCALATE, certified=False, risk_bound=0.0, needed_images=needed)


def is_below(values: Floats, limit: float, confidence: float) -> bool:
    """Whether values (N,) of -1 to 1 prove, at the confidence, that their mean is at most `limit`."""
    shares, share = (values + 1) / 2, (limit + 1) / 2  # Of 0 to 1.
    capital = np.cumsum(np.log1p(-_bets(shares, share, confidence) * (shares - share)))
    return bool(capital.max(initial=0.0) >= -np.log1p(-confidence))


def mean_bound(values: Floats, confidence: float) -> float:
    """The least limit that the mean of values (N,) of -1 to 1 is proved to keep.

    Of a threshold fixed beforehand; of one that the same values chose, only its limit is promised.
    """
    low, high = -1.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_below(values, middle, confidence) else (middle, high)
    return high


def _lost(scores: Floats, losses: Floats, threshold: float) -> Floats:
    return np.where(escalate(scores, threshold), 0.0, losses)


def _bets(shares: Floats, share: float, confidence: float) -> Floats:
    """(N,) Each from the values before it alone: the smaller they spread, the bolder."""
    counts = np.arange(1, len(shares) + 1)
    means = (0.5 + np.cumsum(shares)) / (counts + 1)
    spread = (0.25 + np.cumsum((shares - means) ** 2)) / (counts + 1)
    before = np.concatenate([[0.25], spread[:-1]])
    bold = np.sqrt(-2 * np.log1p(-confidence) / (len(shares) * before))
    return np.asarray(np.minimum(bold, _BOLDEST / (1 - share)))


def _count_needed(lost: Floats, alpha: float, confidence: float) -> int | None:
    """About how many images would do if they went on as these do; None where MOST_IMAGES would not."""

    def would_do(count: int) -> bool:
        return is_below(np.resize(lost, count), alpha, confidence)

    few, many = len(lost), MOST_IMAGES
    if not len(lost) or not would_do(many):
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if would_do(middle) else (middle, many)
    return many
