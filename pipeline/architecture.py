"""Which networks there are: timm's VisionTransformer in the sizes that `model.name` names."""

from dataclasses import dataclass
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Architecture:
    """What makes a VisionTransformer, but for the size of its images."""

    name: str
    patch_px: int
    width: int
    depth: int
    heads: int
    classes: int

    def count_tokens(self, size_px: int) -> int:
        """Patches of a square image, and the class token."""
        return (size_px // self.patch_px) ** 2 + 1

    def check_size(self, size_px: int) -> None:
        """Raises PipelineError where patches do not fill the image."""
        rest = size_px % self.patch_px
        if rest:
            raise PipelineError(
                f"resolutions: {size_px} px is no multiple of the model's patch size {self.patch_px}; "
                f"use {size_px - rest} or {size_px - rest + self.patch_px}"
            )

    def build(self, size_px: int, **settings: Any) -> VisionTransformer:
        """The network for one image size, with weights drawn from torch's generator; settings are timm's."""
        self.check_size(size_px)
        return VisionTransformer(
            img_size=size_px,
            patch_size=self.patch_px,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            num_classes=self.classes,
            **settings,
        )


_NAMED = (
    Architecture("static_vit", 4, 192, 12, 3, 200),
    Architecture("vit_base_patch16", 16, 768, 12, 12, 1000),
)
ARCHITECTURES = {architecture.name: architecture for architecture in _NAMED}
