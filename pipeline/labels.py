"""What the model would have to answer: its own index of each image's class."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# The wnid of images without class folders: what no folder, and so no class, can be called.
UNLABELLED = ""


def true_classes(wnids: Sequence[str], classes: Sequence[str] | None) -> NDArray[np.int64] | None:
    """The model's class index of each image (N,); None where the model does not know all of the classes."""
    index = {wnid: position for position, wnid in enumerate(classes or ())}
    if not set(wnids) <= index.keys():
        return None
    return np.array([index[wnid] for wnid in wnids], dtype=np.int64)


def why_unjudged(wnids: Sequence[str], classes: Sequence[str] | None) -> str:
    """Why `true_classes` is None: what to tell whoever expects accuracies."""
    if UNLABELLED in wnids:
        return "the images are in no class folders, so they have no labels"
    if classes is None:
        return "the weights do not say which classes they tell apart; name a list as model.classes"
    unknown = sorted(set(wnids) - set(classes))
    others = f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""
    return f"the weights do not know class {unknown[0]!r}{others} of the images"
