"""`amx`, `avx512` and `avx2`: the fused model as one C++ function, on a matrix unit or on vectors.

Vectors multiply float32; those of `avx512` also pairs of bfloat16 and, in the layers of the blocks, 8 bits:
weights with a scale for each output, activations with one for each token, which the pass finds. A matrix
unit multiplies bfloat16 alone: float32 weights and activations are split into two bfloat16 numbers each, and
a product into three, which leaves an error of some 1e-5 of the largest value and takes less time than
float32 products on the vector unit (the BF16x3 mode of Intel's oneMKL does the same).
"""

import ctypes
import os
import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.engines.base import Answer, Engine, Prediction, Spec
from pipeline.engines.native.formula import UntoldError, write_formula
from pipeline.engines.native.library import find_unit, load_library, load_score, team_of
from pipeline.engines.native.pack import Outputs, Packed
from pipeline.errors import PipelineError

# Of a batch each thread takes so many tokens at a time: more leave the caches of one core.
_MOST_TOKENS = 260


class NativeEngine(Engine):
    """A single image runs on all threads, each with some tokens; of a batch, each has images of its own.

    The pass computes the proxy, too; a formula that it cannot be told is left to NumPy behind it.
    """

    clocked = False

    def __init__(self, spec: Spec, batch_size: int) -> None:
        super().__init__(spec, batch_size)
        shape, unit = spec.weights.architecture, find_unit(spec.runtime.backend, spec.runtime.precision)
        assert unit is not None  # As `why_not` tells.
        self.packed = Packed(spec.weights, spec.canvas_px, spec.size_px, unit.layouts[spec.runtime.precision])
        piece = max(1, min(_MOST_TOKENS // shape.count_tokens(spec.size_px), batch_size))
        self.packed.model.score = _find_score(spec, unit.name)
        self.library = load_library(unit.name, self.clocked)
        team = team_of(self.library, spec.runtime.threads)
        self.handle = self.library.vit_create(ctypes.byref(self.packed.model), team, piece)
        if not self.handle:
            raise MemoryError(f"no memory for passes of {piece} images on {spec.runtime.threads} threads")
        # At the process's end the system takes the memory; a thread may still be in a pass.
        weakref.finalize(self, self.library.vit_destroy, self.handle).atexit = False
        self.process = os.getpid()
        # In the answer's order.
        widths = ((shape.classes,), (shape.width,), (shape.depth + 1, shape.width), ())
        self.whole = [torch.zeros(batch_size, *width) for width in widths]
        self.outputs = Outputs(*(value.data_ptr() for value in self.whole))
        self.canvas = [3, spec.canvas_px, spec.canvas_px]
        self.arrays = [value.numpy() for value in self.whole]
        # What the threads take at a time, so that their memory is there when the work begins.
        warming = min(piece * spec.runtime.threads, batch_size)
        self.run(torch.zeros(warming, *self.canvas, dtype=torch.uint8))

    def run(self, canvases: Tensor) -> Answer:
        arrays = self._pass(canvases)
        logits, embedding, trace, _ = (value[: len(canvases)] for value in self.whole)
        proxy = self._proxy(arrays)
        return Answer(logits, embedding, trace, None if proxy is None else torch.from_numpy(proxy))

    def predict(self, canvases: Tensor) -> Prediction:
        """Without torch, whose code has left the caches when a pass is done: a first call takes long."""
        arrays = self._pass(canvases)
        return Prediction(arrays[0].argmax(1), self._proxy(arrays))

    def _pass(self, canvases: Tensor) -> list[NDArray[np.float32]]:
        """Logits, embeddings, traces and scores, in the engine's own memory."""
        count, *canvas = canvases.shape
        # The pass reads the memory without looking.
        fits = count <= self.batch_size and canvas == self.canvas
        if not (fits and canvases.dtype == torch.uint8 and canvases.is_cpu):
            raise ValueError(
                f"canvases of {tuple(canvases.shape)} {canvases.dtype} on {canvases.device}, expected up to "
                f"{self.batch_size} of {tuple(self.canvas)} torch.uint8 on cpu"
            )
        if os.getpid() != self.process:  # Where it would wait for them for ever.
            raise PipelineError(
                "the engine was built before its process forked, and a fork has none of its threads; "
                "build it in the new process"
            )
        canvases = canvases.contiguous()
        self.library.vit_run(self.handle, canvases.data_ptr(), count, self.outputs)
        return self.arrays if count == self.batch_size else [array[:count] for array in self.arrays]

    def _proxy(self, arrays: list[NDArray[np.float32]]) -> NDArray[np.floating] | None:
        logits, _, trace, scores = arrays
        if self.packed.model.score:
            return scores
        return None if self.spec.proxy is None else self.spec.proxy(trace, logits)


def _find_score(spec: Spec, unit: str) -> int | None:
    """The address of the formula in C++, None where there is none or it cannot be told or compiled."""
    shape = spec.weights.architecture
    if spec.proxy is None:
        return None
    try:
        source = write_formula(spec.proxy, shape.depth + 1, shape.width, shape.classes)
        return load_score(unit, source)
    except (UntoldError, PipelineError, OSError):  # Such as a cache that only holds what is there.
        return None
