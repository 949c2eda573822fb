"""`compile`: the fused graph through torch.compile, with its weights frozen in on the CPU."""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pipeline.engines.base import Answer, Engine, Spec
from pipeline.fused import FusedViT
from pipeline.images import resize

Model = Callable[[Tensor], tuple[Tensor, ...]]

_MOST_COMPILATIONS = 256
_MOST_KEPT = 16
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CompiledEngine(Engine):
    """Compiled when built: once for a single image, once more for batches of any other size."""

    def __init__(self, spec: Spec, batch_size: int) -> None:
        super().__init__(spec, batch_size)
        self.model = compiled_model(spec)
        for size in {1, min(2, batch_size), batch_size}:
            images = torch.zeros(size, 3, spec.canvas_px, spec.canvas_px, dtype=torch.uint8)
            self.run(self.upload(images))

    # Not inference_mode, whose tensors count as another kind and would be compiled for again.
    @torch.no_grad()
    def run(self, canvases: Tensor) -> Answer:
        return Answer(*self.model(resize(canvases, self.size_px)))


def fused_model(spec: Spec, split: bool = False) -> FusedViT:
    """On the device, in the precision of the runtime. split: as of FusedViT."""
    dtype = _DTYPES[spec.runtime.precision]
    fused = FusedViT(spec.weights, spec.size_px, spec.proxy, dtype, split=split)
    return fused.to(spec.runtime.device)


@lru_cache(maxsize=_MOST_KEPT)
def compiled_model(spec: Spec, split: bool = False) -> Model:
    """The fused model compiled: at its first single image, and at its first batch, for batches of any size.

    Kept for the engines to come, since a run builds several for one role. split: as of FusedViT.
    """
    # All engines of a process share the count, beyond which torch would run eager in silence.
    torch._dynamo.config.recompile_limit = _MOST_COMPILATIONS
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    model = fused_model(spec, split)
    if spec.runtime.device.type != "cpu":
        return compile_parts(model)
    return _by_batch(torch.compile(model, options={"freezing": True}))


def compile_parts(model: FusedViT, backend: str | Callable[..., Any] = "inductor") -> FusedViT:
    """Every block by itself: one stands for all that are alike, so that this takes a fraction of the time."""
    # torch would rather round the factors of float32 to 11 bits, which is beyond the tolerance.
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")

    def compile_part(part: Callable[..., Any]) -> Callable[..., Any]:
        return _by_batch(torch.compile(part, dynamic=False, backend=backend))

    for block in model.blocks:
        block.forward = compile_part(block.forward)
    model.embed = compile_part(model.embed)  # type: ignore[method-assign]
    model.finish = compile_part(model.finish)  # type: ignore[method-assign]
    return model


def _by_batch(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled once for one image, and once for any more."""

    def run(*values: Tensor | None) -> Any:
        for value in values:
            if value is not None and len(value) > 1:
                torch._dynamo.mark_dynamic(value, 0)
        return compiled(*values)

    return run
