"""What a native pass is made of: the engine with a library that keeps the time of its parts."""

import ctypes

import numpy as np

from pipeline.engines.native.engine import NativeEngine

# In the order of src/clock.h.
PARTS = ("products", "GELU, sums", "softmax", "norms", "convolutions", "waiting", "rest")


class ClockedEngine(NativeEngine):
    """As `NativeEngine`, slower by what reading a clock some thousand times in a pass takes."""

    clocked = True

    def take_clock(self) -> dict[str, float]:
        """Seconds by part of all passes since the last call, of any such engine: the mean of the threads."""
        seconds = np.zeros(len(PARTS))
        self.library.vit_take_clock(ctypes.c_void_p(seconds.ctypes.data))
        return dict(zip(PARTS, seconds.tolist(), strict=True))
