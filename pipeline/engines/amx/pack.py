"""The fused model's weights in the layout that the AMX pass reads (`src/model.h`)."""

import ctypes
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engines.amx.resizing import find_taps
from pipeline.errors import PipelineError
from pipeline.fused import FusedViT
from pipeline.vit import Weights

# Inputs and outputs that a tile of weights covers, and hidden values of an MLP that are worked on together:
# few enough for the first cache.
_INPUTS, _OUTPUTS, _HIDDEN = 32, 16, 192
_MOST_KEPT = 4
_ALIGNMENT = 64


def _structure(**fields: Any) -> type[ctypes.Structure]:
    return type("Structure", (ctypes.Structure,), {"_fields_": list(fields.items())})


_POINTER, _INT = ctypes.c_void_p, ctypes.c_int32
Linear = _structure(tiles=_POINTER, bias=_POINTER, inputs=_INT, outputs=_INT)
_LINEARS = ctypes.POINTER(Linear)
Block = _structure(
    query=Linear,
    key=Linear,
    value=Linear,
    out=Linear,
    widen=_LINEARS,
    narrow=_LINEARS,
    taps=_POINTER,
    taps_bias=_POINTER,
)
Resize = _structure(from_px=_INT, to_px=_INT, taps=_INT, shift=_INT, first=_POINTER, weights=_POINTER)
Model = _structure(
    resize=Resize,
    size_px=_INT,
    patch_px=_INT,
    width=_INT,
    heads=_INT,
    depth=_INT,
    classes=_INT,
    planes=_INT,
    chunks=_INT,
    patches=Linear,
    head=Linear,
    position=_POINTER,
    first=_POINTER,
    norm_gain=_POINTER,
    norm_bias=_POINTER,
    blocks=ctypes.POINTER(Block),
)
Outputs = _structure(logits=_POINTER, embedding=_POINTER, trace=_POINTER)


class Packed:
    """`model` describes a network for canvases and images of one size; what it points to lives as long.

    planes: bfloat16 numbers that add up to a weight: 1 for bfloat16, 2 for float32.
    Raises PipelineError where the widths are no multiples of a tile's.
    """

    def __init__(self, weights: Weights, canvas_px: int, size_px: int, planes: int) -> None:
        shape, fused = weights.architecture, FusedViT(weights, size_px, None)
        if shape.width % _INPUTS or shape.width // shape.heads % _INPUTS:
            raise PipelineError(
                f"runtime.backend: amx needs a width, and a width of a head, of a multiple of {_INPUTS}; "
                f"{shape.name} has {shape.width} and {shape.width // shape.heads}: use openvino"
            )
        self.network = _pack_network(weights, planes)  # Shared by all sizes.
        self.own = [values.detach().contiguous() for values in (fused.position, fused.first)]
        self.resizing: list[Tensor] = []
        self.model = Model(
            self._resize(canvas_px, size_px),
            size_px,
            shape.patch_px,
            shape.width,
            shape.heads,
            shape.depth,
            shape.classes,
            planes,
            self.network.chunks,
            self.network.patches,
            self.network.head,
            *(values.data_ptr() for values in self.own),
            *self.network.norm,
            self.network.blocks,
        )

    def _resize(self, canvas_px: int, size_px: int) -> ctypes.Structure:
        if canvas_px == size_px:
            return Resize(canvas_px, size_px, 0, 0, None, None)
        taps = find_taps(canvas_px, size_px)
        # Of four taps 0 and 2, then 1 and 3, each for all pixels.
        weights = taps.weights.reshape(size_px, -1, 2, 2).transpose(1, 3, 0, 2)
        self.resizing = [torch.from_numpy(taps.first), torch.from_numpy(np.ascontiguousarray(weights))]
        addresses = (values.data_ptr() for values in self.resizing)
        return Resize(canvas_px, size_px, taps.weights.shape[1], taps.shift, *addresses)


class _Network:
    """What all image sizes have in common."""

    def __init__(self, weights: Weights, planes: int) -> None:
        shape = weights.architecture
        fused = FusedViT(weights, 8 * shape.patch_px, None)
        # One array for all: NumPy asks for huge pages where it is large, and a pass touches every page.
        size = 8 * sum(values.numel() for values in fused.parameters()) + 2**16
        self.arena = np.empty(size, dtype=np.uint8)
        self.planes, self.used = planes, -self.arena.ctypes.data % _ALIGNMENT
        self.lists: list[Any] = []
        self.patches = self._linear(fused.patches.flatten(1), torch.zeros(shape.width))
        self.head = self._linear(fused.head.weight, fused.head.bias)
        self.norm = self._keep(fused.norm.weight), self._keep(fused.norm.bias)
        self.blocks = (Block * shape.depth)(*(self._block(block, shape.width) for block in fused.blocks))
        self.chunks = len(self.lists[0])

    def _block(self, block: Any, width: int) -> ctypes.Structure:
        parts = zip(block.qkv.weight.split(width), block.qkv.bias.split(width), strict=True)
        attention = [self._linear(*part) for part in (*parts, (block.out.weight, block.out.bias))]
        widen = block.widen.weight.split(_HIDDEN), block.widen.bias.split(_HIDDEN)
        narrow = block.narrow.weight.split(_HIDDEN, dim=1)
        biases = [block.narrow.bias, *[torch.zeros(width)] * (len(narrow) - 1)]  # Added once.
        local = block.local and (block.local.weight.flatten(1).T, block.local.bias)
        taps = [self._keep(values) for values in local] if local else [None, None]
        return Block(*attention, self._linears(*widen), self._linears(narrow, biases), *taps)

    def _linears(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Any:
        self.lists.append((Linear * len(weights))(*map(self._linear, weights, biases)))
        return self.lists[-1]

    def _linear(self, weight: Tensor, bias: Tensor) -> ctypes.Structure:
        weight = F.pad(weight.float(), (0, -weight.shape[1] % _INPUTS, 0, -weight.shape[0] % _OUTPUTS))
        bias = F.pad(bias.float(), (0, len(weight) - len(bias)))
        tiles = torch.stack([_to_tiles(part) for part in _split(weight, self.planes)], dim=2)
        return Linear(self._keep(tiles), self._keep(bias), weight.shape[1], weight.shape[0])

    def _keep(self, values: Tensor) -> int:
        """The address of a copy in the arena."""
        content = values.detach().contiguous().flatten().view(torch.uint8).numpy()
        start, self.used = self.used, self.used + len(content) + -len(content) % _ALIGNMENT
        self.arena[start : start + len(content)] = content
        address: int = self.arena.ctypes.data + start
        return address


@lru_cache(maxsize=_MOST_KEPT)
def _pack_network(weights: Weights, planes: int) -> _Network:
    return _Network(weights, planes)


def _split(values: Tensor, planes: int) -> Iterator[Tensor]:
    """bfloat16 tensors that add up to the values, as nearly as so many can."""
    for _ in range(planes):
        part = values.bfloat16()
        yield part
        values = values - part.float()


def _to_tiles(weight: Tensor) -> Tensor:
    """(out, in) to (strips of outputs, steps of inputs, pairs of inputs, outputs, the pair)."""
    outputs, inputs = weight.shape
    tiles = weight.reshape(outputs // _OUTPUTS, _OUTPUTS, inputs // _INPUTS, _INPUTS // 2, 2)
    return tiles.permute(0, 2, 3, 1, 4)
