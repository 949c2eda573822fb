"""static_vit as it is trained: one set of blocks, a position embedding for each image size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.vit import PATCH_PX, PIXEL_MEAN, PIXEL_STD, WIDTH, empty_vit, position_name

_POSITION_STD = 0.02


class TrainableViT(nn.Module):
    """float (B, 3, s, s) of 0..255, s one of `sizes_px`, to logits (B, C).

    drop_path: highest rate of stochastic depth (Huang et al. 2016), reached at the last block.
    fused_attention: torch's own, which on the CPU takes twice the time of its parts at 65 tokens, for its
    backward pass.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sizes_px: Sequence[int], drop_path: float, fused_attention: bool = True) -> None:
        super().__init__()
        self.sizes_px = tuple(sorted(sizes_px))
        self.vit = empty_vit(self.sizes_px[-1], drop_path)
        for block in self.vit.blocks:
            block.get_submodule("attn").fused_attn = fused_attention  # type: ignore[assignment]
        del self.vit.pos_embed
        self.positions = nn.ParameterDict({str(size_px): _new_position(size_px) for size_px in sizes_px})
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor, patches: int | None = None) -> Tensor:
        """patches: how many of each image's patches are seen, drawn anew for each image; None: all.

        (Patch dropout, Liu et al. 2022: a large image for the price of a small one.)
        """
        position = self.positions[str(images.shape[-1])]
        tokens = self.vit.patch_embed.proj((images - self.mean) / self.std).flatten(2).transpose(1, 2)
        tokens = tokens + position[:, 1:]  # B, N, D
        if patches is not None and patches < tokens.shape[1]:
            drawn = torch.rand(tokens.shape[:2], device=tokens.device).argsort(dim=1)[:, :patches]
            tokens = tokens.gather(1, drawn[..., None].expand(-1, -1, WIDTH))
        first = (self.vit.cls_token + position[:, :1]).expand(len(images), -1, -1)
        tokens = self.vit.blocks(torch.cat([first, tokens.to(first.dtype)], dim=1))
        logits: Tensor = self.vit.head(self.vit.norm(tokens[:, 0]))
        return logits.float()

    def to_state(self) -> dict[str, Tensor]:
        """Copies on the CPU, by the names of a `Weights.state`."""
        state = {name: value for name, value in self.vit.state_dict().items() if name != "pos_embed"}
        for size_px in self.sizes_px:
            state[position_name(size_px)] = self.positions[str(size_px)]
        state["pos_embed"] = self.positions[str(self.sizes_px[-1])]
        return {name: value.detach().float().cpu().clone() for name, value in state.items()}


def _new_position(size_px: int) -> nn.Parameter:
    position = torch.empty(1, (size_px // PATCH_PX) ** 2 + 1, WIDTH)
    return nn.Parameter(nn.init.trunc_normal_(position, std=_POSITION_STD))
