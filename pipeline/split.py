"""The draw: which images calibrate and which evaluate, stratified by class, the same on every machine."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Literal

from pipeline.errors import PipelineError

Split = Literal["calibration", "evaluation"]


def rank(*parts: object) -> bytes:
    """A draw without a random generator: no library's version can change it."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()


def share_out(total: int, counts: Mapping[str, int], free: Mapping[str, int], order: str) -> dict[str, int]:
    """Quotas that sum to `total`, in proportion to `counts` by largest remainder, none above `free`.

    `free` must hold `total`. Equal remainders go by the hash of `order` and class: by name, small
    draws would always meet the same classes.
    """
    whole = sum(counts.values())
    quotas = {name: min(total * count // whole, free[name]) for name, count in counts.items()}
    ranked = sorted(counts, key=lambda name: (-(total * counts[name] % whole), rank(order, name)))
    left = total - sum(quotas.values())
    while left:
        for name in ranked:
            if left and quotas[name] < free[name]:
                quotas[name] += 1
                left -= 1
    return quotas


def draw_splits(
    wnids: Mapping[str, str], calibration_images: int, evaluation_images: int, seed: int
) -> dict[str, Split]:
    """Split of every drawn image_id, from the wnid of each; raises PipelineError where images are too few.

    Within a class images are ranked by hash, calibration first: asking for more evaluation images
    leaves the calibration split as it is.
    """
    asked = calibration_images + evaluation_images
    if asked > len(wnids):
        raise PipelineError(
            f"data: {calibration_images} calibration and {evaluation_images} evaluation images asked, "
            f"{len(wnids)} usable found; set data.calibration_images and data.evaluation_images "
            f"to {len(wnids)} or less together"
        )
    by_class: dict[str, list[str]] = defaultdict(list)
    for image_id in sorted(wnids, key=lambda image_id: rank(seed, image_id)):
        by_class[wnids[image_id]].append(image_id)
    counts = Counter(wnids.values())
    first = share_out(calibration_images, counts, counts, f"{seed}/calibration")
    second = share_out(evaluation_images, counts, counts - Counter(first), f"{seed}/evaluation")
    drawn: dict[str, Split] = {}
    for wnid, image_ids in by_class.items():
        middle, end = first[wnid], first[wnid] + second[wnid]
        drawn |= dict.fromkeys(image_ids[:middle], "calibration")
        drawn |= dict.fromkeys(image_ids[middle:end], "evaluation")
    return drawn
