"""The fused model's weights in the layout that the pass reads (`src/model.h`)."""

import ctypes
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.architecture import Architecture
from pipeline.engines.native.resizing import find_taps
from pipeline.errors import PipelineError
from pipeline.fused import FusedViT
from pipeline.vit import Weights

# Outputs that a tile of weights covers, and hidden values of an MLP that are worked on together: few enough
# for the first cache.
_OUTPUTS, _HIDDEN = 16, 192
_MOST_KEPT = 4
_ALIGNMENT = 64


class Layout(NamedTuple):
    """How a product takes its weights: numbers of `dtype`, `planes` of which add up to one weight.

    A tile covers `depth` inputs, of which `together` stand side by side for each output. quantises: the
    blocks' weights have 8 bits instead.
    """

    dtype: torch.dtype
    planes: int
    depth: int
    together: int
    quantises: bool = False


# Around 128, with a scale for each output.
_EIGHT_BITS = Layout(torch.uint8, planes=1, depth=16, together=4)
_MIDDLE, _LARGEST = 128, 127
# Of a row in 8 bits, for which the pass has room on the stack (`src/int8/quantised.h`).
_MOST_INPUTS = 1024


def _structure(**fields: Any) -> type[ctypes.Structure]:
    return type("Structure", (ctypes.Structure,), {"_fields_": list(fields.items())})


_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
Linear = _structure(tiles=_POINTER, bias=_POINTER, scales=_POINTER, inputs=_INT, outputs=_INT)
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
    prefix=_INT,
    quick_gelu=_INT,
    epsilon=_FLOAT,
    patches=Linear,
    head=Linear,
    position=_POINTER,
    first=_POINTER,
    norm_gain=_POINTER,
    norm_bias=_POINTER,
    pre_gain=_POINTER,
    pre_bias=_POINTER,
    blocks=ctypes.POINTER(Block),
    score=_POINTER,
)
Outputs = _structure(logits=_POINTER, embedding=_POINTER, trace=_POINTER, score=_POINTER)


def why_unfit(shape: Architecture, layout: Layout) -> str | None:
    """Why the layout does not take a network, and what does; None where it takes it."""
    step = max(layout.depth, _OUTPUTS)
    if shape.width % step or shape.width // shape.heads % step:
        return (
            f"it takes widths, of the model and of a head, of a multiple of {step}; "
            f"{shape.name} has {shape.width} and {shape.width // shape.heads}: use openvino"
        )
    if layout.quantises and shape.width > _MOST_INPUTS:
        return (
            f"int8 takes a width of {_MOST_INPUTS} at most; {shape.name} has {shape.width}: "
            "use bfloat16 or float32"
        )
    return None


class Packed:
    """`model` describes a network for canvases and images of one size; what it points to lives as long.

    Raises PipelineError where the layout does not take the network.
    """

    def __init__(self, weights: Weights, canvas_px: int, size_px: int, layout: Layout) -> None:
        shape, fused = weights.architecture, FusedViT(weights, size_px, None)
        if reason := why_unfit(shape, layout):
            raise PipelineError(f"runtime.backend: {reason}")
        self.network = _pack_network(weights, layout)  # Shared by all sizes.
        patches = _tile(fused.patches.flatten(1), torch.zeros(shape.width), layout)
        head = _tile(fused.head.weight, fused.head.bias, layout)
        own = fused.position, fused.first, patches.tiles, patches.bias, head.tiles, head.bias
        self.own = [values.detach().contiguous() for values in own]
        position, first, patches_at, patches_bias, *head_at = (values.data_ptr() for values in self.own)
        self.resizing: list[Tensor] = []
        self.model = Model(
            self._resize(canvas_px, size_px),
            size_px,
            shape.patch_px,
            shape.width,
            shape.heads,
            shape.depth,
            shape.classes,
            layout.planes,
            self.network.chunks,
            shape.prefix,
            shape.quick_gelu,
            shape.epsilon,
            Linear(patches_at, patches_bias, None, patches.inputs, len(patches.bias)),
            Linear(*head_at, None, head.inputs, len(head.bias)),
            position,
            first,
            *self.network.norms,
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

    def __init__(self, weights: Weights, layout: Layout) -> None:
        shape = weights.architecture
        fused = FusedViT(weights, 8 * shape.patch_px, None)
        # One array for all: NumPy asks for huge pages where it is large, and a pass touches every page.
        size = 8 * sum(values.numel() for values in fused.parameters()) + 2**16
        self.arena = np.empty(size, dtype=np.uint8)
        self.used = -self.arena.ctypes.data % _ALIGNMENT
        self.layout = _EIGHT_BITS if layout.quantises else layout
        self.lists: list[Any] = []
        self.norms = *self._norm(fused.norm), *self._norm(fused.norm_pre)
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
        tiles, bias, scales, inputs = _tile(weight, bias, self.layout)
        scales_at = None if scales is None else self._keep(scales)
        return Linear(self._keep(tiles), self._keep(bias), scales_at, inputs, len(bias))

    def _norm(self, norm: nn.LayerNorm | None) -> tuple[int | None, int | None]:
        return (self._keep(norm.weight), self._keep(norm.bias)) if norm else (None, None)

    def _keep(self, values: Tensor) -> int:
        """The address of a copy in the arena."""
        content = values.detach().contiguous().flatten().view(torch.uint8).numpy()
        start, self.used = self.used, self.used + len(content) + -len(content) % _ALIGNMENT
        self.arena[start : start + len(content)] = content
        address: int = self.arena.ctypes.data + start
        return address


@lru_cache(maxsize=_MOST_KEPT)
def _pack_network(weights: Weights, layout: Layout) -> _Network:
    return _Network(weights, layout)


class _Tiled(NamedTuple):
    """A linear layer padded to whole tiles: `bias` and `scales` have one entry an output, `inputs` counts the
    inputs."""

    tiles: Tensor
    bias: Tensor
    scales: Tensor | None
    inputs: int


def _tile(weight: Tensor, bias: Tensor, layout: Layout) -> _Tiled:
    weight = F.pad(weight.float(), (0, -weight.shape[1] % layout.depth, 0, -weight.shape[0] % _OUTPUTS))
    bias = F.pad(bias.float(), (0, len(weight) - len(bias)))
    if layout is _EIGHT_BITS:
        scales = weight.abs().amax(dim=1) / _LARGEST
        whole = (weight / scales.clamp(min=torch.finfo().tiny)[:, None]).round() + _MIDDLE
        return _Tiled(_to_tiles(whole.to(layout.dtype), layout), bias, scales, weight.shape[1])
    tiles = torch.stack([_to_tiles(part, layout) for part in _split(weight, layout)], dim=2)
    return _Tiled(tiles, bias, None, weight.shape[1])


def _split(values: Tensor, layout: Layout) -> Iterator[Tensor]:
    """Tensors that add up to the values, as nearly as so many can."""
    for _ in range(layout.planes):
        part = values.to(layout.dtype)
        yield part
        values = values - part.float()


def _to_tiles(weight: Tensor, layout: Layout) -> Tensor:
    """(out, in) to (strips of outputs, steps of inputs, groups of a step's inputs, outputs, the group)."""
    depth, together = layout.depth, layout.together
    tiles = weight.reshape(-1, _OUTPUTS, weight.shape[1] // depth, depth // together, together)
    return tiles.permute(0, 2, 3, 1, 4)
