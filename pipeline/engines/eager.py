"""`eager`: PyTorch as it is, the reference that the other engines are held against."""

import torch
from torch import Tensor

from pipeline.engines.base import Answer, Engine, Spec
from pipeline.images import resize
from pipeline.vit import TracedViT


class EagerEngine(Engine):
    """Compiles nothing, captures nothing, takes any batch."""

    def __init__(self, spec: Spec, batch_size: int) -> None:
        super().__init__(spec, batch_size)
        self.model = TracedViT(spec.weights, spec.size_px).to(spec.runtime.device)

    @torch.inference_mode()
    def run(self, canvases: Tensor) -> Answer:
        images = resize(canvases, self.size_px)
        bfloat16 = self.runtime.precision == "bfloat16"
        with torch.autocast(self.runtime.device.type, torch.bfloat16, enabled=bfloat16):
            result = self.model(images)
        proxy = self.spec.proxy(result.trace, result.logits) if self.spec.proxy else None
        return Answer(result.logits, result.embedding, result.trace, proxy)
