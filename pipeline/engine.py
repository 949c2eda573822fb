"""A model at one role, ready to run: canvas in, `Pass` out. `eager` is PyTorch as it is.

A canvas is the decoded image at the high size, uint8 RGB. Resizing to the role's own size happens here,
on the device, so that whatever times an engine pays for it.
"""

import torch
from torch import Tensor

from pipeline.images import resize
from pipeline.runtime import Runtime
from pipeline.vit import Pass, TracedViT, Weights

# How a canvas becomes the input of a role; part of every fingerprint.
TRANSFORM = "bilinear antialiased resize of uint8, then ImageNet mean and std"


class EagerEngine:
    """Compile nothing, capture nothing: the reference that other engines are held against."""

    def __init__(self, weights: Weights, size_px: int, runtime: Runtime) -> None:
        self.size_px = size_px
        self.runtime = runtime
        self.model = TracedViT(weights, size_px).to(runtime.device)

    def upload(self, canvases: Tensor) -> Tensor:
        """Host uint8 (B, 3, S, S) to the device."""
        return canvases.to(self.runtime.device, non_blocking=True)

    @torch.inference_mode()
    def run(self, canvases: Tensor) -> Pass:
        """Device uint8 (B, 3, S, S) to a `Pass` on the device."""
        images = resize(canvases, self.size_px)
        bfloat16 = self.runtime.precision == "bfloat16"
        with torch.autocast(self.runtime.device.type, torch.bfloat16, enabled=bfloat16):
            return self.model(images)  # type: ignore[no-any-return]
