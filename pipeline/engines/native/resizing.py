"""The weights of torch's antialiased bilinear resize of uint8 images, which the native pass does itself."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_TOGETHER = 4
_MOST_BITS = 22


class Taps(NamedTuple):
    """first (to_px,) int32: where the pixels begin that make a resized one; weights (to_px, taps) int16, of
    which 2^shift make one."""

    first: NDArray[np.int32]
    weights: NDArray[np.int16]
    shift: int


def find_taps(from_px: int, to_px: int) -> Taps:
    """A triangle twice as wide as a pixel of the smaller image, in as many bits as its largest weight allows.

    The taps are a multiple of four, all of them inside the image; `from_px` is at least as many.
    """
    scale = from_px / to_px
    support = max(scale, 1.0)
    centres = scale * (np.arange(to_px) + 0.5)
    begins = np.maximum((centres - support + 0.5).astype(int), 0)
    ends = np.minimum((centres + support + 0.5).astype(int), from_px)
    taps = int((ends - begins).max())
    taps += -taps % _TOGETHER
    first = np.minimum(begins, from_px - taps)
    places = first[:, None] + np.arange(taps)
    weights = np.maximum(1 - abs(places + 0.5 - centres[:, None]) / support, 0)
    weights[(places < begins[:, None]) | (places >= ends[:, None])] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    fit = (bits for bits in range(_MOST_BITS) if int(0.5 + weights.max() * 2 ** (bits + 1)) >= 2**15)
    shift = next(fit, _MOST_BITS)
    return Taps(first.astype(np.int32), (weights * 2**shift + 0.5).astype(np.int16), shift)
