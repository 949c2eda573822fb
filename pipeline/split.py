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


def share_out(total: int, counts: Mapping[str, int], order: str) -> dict[str, int]:
    """Quotas that sum to `total`, each in proportion to its count up to rounding; `counts` must hold `total`.

    What the rounding leaves is drawn, by the hash of `order`, so that every image has the same chance: by the
    largest remainder, classes of few images would get none, whatever the seed. (Systematic sampling: in an
    order of the classes, from a start on, every whole/total-th image counts for its class.)
    """
    whole = sum(counts.values()) or 1
    start, quotas, passed = int.from_bytes(rank(order)) % whole, {}, 0
    for name in sorted(counts, key=lambda name: rank(order, name)):
        before = (start + total * passed) // whole
        passed += counts[name]
        quotas[name] = (start + total * passed) // whole - before
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
    first = share_out(calibration_images, counts, f"{seed}/calibration")
    left = {wnid: count - first[wnid] for wnid, count in counts.items()}
    second = share_out(evaluation_images, left, f"{seed}/evaluation")
    drawn: dict[str, Split] = {}
    for wnid, image_ids in by_class.items():
        middle, end = first[wnid], first[wnid] + second[wnid]
        drawn |= dict.fromkeys(image_ids[:middle], "calibration")
        drawn |= dict.fromkeys(image_ids[middle:end], "evaluation")
    return drawn
