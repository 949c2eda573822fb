"""`compile`: the fused graph through torch.compile, with its weights frozen in on the CPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.engines.base import Answer, Engine, Spec
from pipeline.fused import FusedViT
from pipeline.images import resize

_MOST_COMPILATIONS = 256
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CompiledEngine(Engine):
    """Compiled when built: once for a single image, once more for batches of any other size."""

    def __init__(self, spec: Spec, batch_size: int) -> None:
        super().__init__(spec, batch_size)
        self.model = compile_model(spec)
        for size in {1, min(2, batch_size), batch_size}:
            images = torch.zeros(size, 3, spec.canvas_px, spec.canvas_px, dtype=torch.uint8)
            self.run(self.upload(images))

    # Not inference_mode, whose tensors count as another kind and would be compiled for again.
    @torch.no_grad()
    def run(self, canvases: Tensor) -> Answer:
        images = resize(canvases, self.size_px)
        if len(images) > 1:
            torch._dynamo.mark_dynamic(images, 0)
        return Answer(*self.model(images))


def fused_model(spec: Spec) -> FusedViT:
    """On the device, in the precision of the runtime."""
    dtype = _DTYPES[spec.runtime.precision]
    return FusedViT(spec.weights, spec.size_px, spec.proxy, dtype).to(spec.runtime.device)


def compile_model(spec: Spec) -> Callable[[Tensor], tuple[Tensor, ...]]:
    # All engines of a process share the count, beyond which torch would run eager in silence.
    torch._dynamo.config.recompile_limit = _MOST_COMPILATIONS
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    on_cpu = spec.runtime.device.type == "cpu"
    options: dict[str, Any] = {"freezing": True} if on_cpu else {}
    return torch.compile(fused_model(spec), options=options)
