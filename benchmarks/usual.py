"""The usual way: how published implementations of two-step inference run their model, written afresh.

Eager PyTorch, one image at a time in a Python loop: PIL resize, a model that resamples its position
embedding at every call, forward hooks that collect the CLS token of each layer, and `.item()` wherever a
number is needed.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from pipeline.answers import NEEDS, Answers, PolicyName
from pipeline.params.model import Role
from pipeline.vit import Weights

USUAL = "usual way float32"


class HookedViT:
    """timm's ViT for any image size, with the CLS token after the embedding and after each block."""

    def __init__(self, weights: Weights, native_px: int, device: torch.device) -> None:
        self.device = device
        self.model = weights.architecture.build(native_px, dynamic_img_size=True).eval()
        self.model.load_state_dict(dict(weights.state))
        self.model.to(device)
        self.trace: list[Tensor] = []
        for layer in (self.model.norm_pre, *self.model.blocks):
            layer.register_forward_hook(self._keep)

    def _keep(self, _layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.trace.append(output[:, 0].detach())

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Normalised float (B, 3, S, S) on the host to logits; the trace of the call is in `trace`."""
        self.trace = []
        logits: Tensor = self.model(images.to(self.device))
        return logits


class UsualWay:
    """The same policies as `pipeline.cascade.Cascade`; escalates where cls_change lies on its side."""

    def __init__(
        self,
        weights: Weights,
        sizes_px: Mapping[Role, int],
        device: torch.device,
        direction: int,
        threshold: float,
    ) -> None:
        self.vit = HookedViT(weights, sizes_px["high"], device)
        self.direction, self.threshold = direction, threshold
        self.prepare = {
            role: transforms.Compose(
                [
                    transforms.Resize((size_px, size_px)),
                    transforms.ToTensor(),
                    transforms.Normalize(*weights.normalisation),
                ]
            )
            for role, size_px in sizes_px.items()
        }

    def answer(self, name: PolicyName, canvases: Tensor) -> Answers:
        """Host uint8 (N, 3, S, S) to answers, image by image."""
        answers = [self._answer_one(name, as_picture(canvas)) for canvas in canvases]
        return Answers(*map(np.array, zip(*answers, strict=True)))

    def score(self, picture: Image.Image) -> float:
        """direction * cls_change of the low pass."""
        self._predict("low", picture)
        return self.direction * self._change()

    def _answer_one(self, name: PolicyName, picture: Image.Image) -> tuple[int, bool]:
        if name != "adaptive":
            (role,) = NEEDS[name]
            return self._predict(role, picture), role == "high"
        top1 = self._predict("low", picture)
        if self.direction * self._change() <= self.threshold:
            return top1, False
        return self._predict("high", picture), True

    def _predict(self, role: Role, picture: Image.Image) -> int:
        logits = self.vit(self.prepare[role](picture)[None])
        return int(logits.argmax(dim=1).item())

    def _change(self) -> float:
        states = self.vit.trace
        steps = [torch.norm(b - a, dim=-1).item() for a, b in itertools.pairwise(states)]
        return float(sum(steps) / len(steps))


def as_picture(canvas: Tensor) -> Image.Image:
    """What a decoder would have given."""
    return Image.fromarray(canvas.permute(1, 2, 0).contiguous().numpy())
