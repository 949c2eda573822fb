"""Which networks there are: timm's VisionTransformer in the sizes that `model.name` names."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.layers.activations import QuickGELU
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from pipeline.errors import PipelineError


class LocalBlock(Block):
    """timm's block behind a local perception unit (Guo et al. 2022, CMT).

    The unit adds to every patch a depthwise 3 x 3 convolution over its neighbours; the class token has none.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, qkv_bias=True)
        self.local = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)

    def forward(self, x: Tensor, *args: Any, **settings: Any) -> Tensor:
        tokens = map_patches(lambda patches: patches + self.local(patches), x)
        changed: Tensor = super().forward(tokens, *args, **settings)
        return changed


def map_patches(change: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """(B, 1 + g * g, D) to the same; `change` gets the patches as (B, D, g, g), the class token stays."""
    side = math.isqrt(tokens.shape[1] - 1)
    patches = change(tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side)))
    return torch.cat([tokens[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


@dataclass(frozen=True)
class Architecture:
    """What makes a VisionTransformer, but for the size of its images; the first `local` blocks are local.

    pre_norm: the tokens are normalised before the first block, and patches have no bias, as in CLIP (Radford
    et al. 2021). epsilon: of the norms. classes: 0 where there is no classifier. registers: tokens behind the
    class token that no patch gives (Darcet et al. 2024); beside them the class token has no position.
    quick_gelu: x sigmoid(1.702 x) in place of GELU, as in OpenAI's CLIP.
    """

    name: str
    patch_px: int
    width: int
    depth: int
    heads: int
    classes: int
    local: int = 0
    pre_norm: bool = False
    epsilon: float = 1e-6
    registers: int = 0
    quick_gelu: bool = False

    @property
    def prefix(self) -> int:
        """Tokens before those of the patches: the class token, and registers."""
        return 1 + self.registers

    def count_tokens(self, size_px: int) -> int:
        """Patches of a square image, and what comes before them."""
        return (size_px // self.patch_px) ** 2 + self.prefix

    def count_positions(self, size_px: int) -> int:
        """Tokens that have a position embedding."""
        return (size_px // self.patch_px) ** 2 + int(not self.registers)

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
        vit = VisionTransformer(
            img_size=size_px,
            patch_size=self.patch_px,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            num_classes=self.classes,
            pre_norm=self.pre_norm,
            norm_layer=partial(LayerNorm, eps=self.epsilon),
            act_layer=QuickGELU if self.quick_gelu else nn.GELU,
            reg_tokens=self.registers,
            **{"no_embed_class": self.registers > 0, **settings},
        )
        if self.local:
            for index in range(self.local):
                vit.blocks[index] = LocalBlock(self.width, self.heads)
            vit.init_weights()
        return vit

    def outline(self, size_px: int, **settings: Any) -> VisionTransformer:
        """As `build`, but of tensors that have a shape and no values, so that none are drawn."""
        with torch.device("meta"):
            return self.build(size_px, weight_init="skip", **settings)


_NAMED = (
    Architecture("static_vit", 4, 192, 12, 3, 200),
    Architecture("static_vit_local", 4, 192, 12, 3, 200, local=6),
    Architecture("vit_base_patch16", 16, 768, 12, 12, 1000),
)
ARCHITECTURES = {architecture.name: architecture for architecture in _NAMED}
