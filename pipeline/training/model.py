"""A Vision Transformer as it is trained: one set of blocks, a position embedding for each image size."""

from collections.abc import Mapping, Sequence

import torch
from timm.layers.drop import DropPath
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from pipeline.architecture import Architecture
from pipeline.vit import at_size, own_name, split_positions
from pipeline.zoo import IMAGENET, Normalisation

# Compiled once for each image size and mode; the count is shared by all blocks.
_MOST_COMPILATIONS = 64


class TrainableViT(nn.Module):
    """float (B, 3, s, s) of 0..255, s one of `sizes_px`, to logits (B, C).

    The position embedding of a size is that of the largest, resampled, plus one of its own that starts at
    zero: what one size learns serves all, and each may differ.

    drop_path: rate of stochastic depth (Huang et al. 2016), the same for all blocks, so that one compiled
    block serves as every block.
    fused_attention: torch's own, which on the CPU takes twice the time of its parts at 65 tokens, for its
    backward pass.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: Architecture,
        sizes_px: Sequence[int],
        drop_path: float,
        fused_attention: bool = True,
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.sizes_px = tuple(sorted(sizes_px))
        self.vit = architecture.build(self.sizes_px[-1])
        for block in self.vit.blocks:
            block.get_submodule("attn").fused_attn = fused_attention  # type: ignore[assignment]
            block.drop_path1, block.drop_path2 = DropPath(drop_path), DropPath(drop_path)
        self.own = nn.ParameterDict(
            {
                str(size_px): nn.Parameter(
                    torch.zeros(1, architecture.count_positions(size_px), architecture.width)
                )
                for size_px in self.sizes_px[:-1]
            }
        )
        for name, values in normalisation._asdict().items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        cls_token = self.vit.cls_token
        assert cls_token is not None
        first, position = split_positions(self.position(images.shape[-1]), cls_token, self.vit.reg_token)
        patches: Tensor = self.vit.patch_embed.proj((images - self.mean) / self.std)
        tokens = patches.flatten(2).transpose(1, 2) + position  # B, N, D
        first = first.expand(len(images), -1, -1)
        tokens = self.vit.norm_pre(torch.cat([first, tokens.to(first.dtype)], dim=1))
        tokens = self.vit.blocks(tokens)
        logits: Tensor = self.vit.head(self.vit.norm(tokens[:, 0]))
        return logits.float()

    def position(self, size_px: int) -> Tensor:
        """The position embedding of a size, (1, positions, D)."""
        shared = self.vit.pos_embed
        assert shared is not None
        if size_px == self.sizes_px[-1]:
            return shared
        grid = size_px // self.architecture.patch_px
        of_class = int(not self.architecture.registers)
        resampled: Tensor = resample_abs_pos_embed(shared, new_size=[grid, grid], num_prefix_tokens=of_class)
        own: Tensor = self.own[str(size_px)]
        return resampled + own

    def compile_blocks(self) -> None:
        """Each block by itself: minutes less of compiling than the whole, for little more time a step."""
        torch._dynamo.config.recompile_limit = _MOST_COMPILATIONS
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        for block in self.vit.blocks:
            block.compile(dynamic=False)

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], with_head: bool) -> None:
        """Take over a `Weights.state` of the same architecture; without its head, this one's stays.

        Position embeddings are those that its sizes would run with. Head and patch embedding are the ones
        that all sizes share, since those of one size are for whole images, not for crops of them.
        """
        mine, patch_px = self.vit.state_dict(), self.architecture.patch_px
        others = [name for name in mine if with_head or not name.startswith("head.")]
        kept = {**mine, **{name: state[name] for name in others}}
        kept["pos_embed"] = at_size(state, self.sizes_px[-1], patch_px)["pos_embed"]
        self.vit.load_state_dict(kept)
        for size_px, own in self.own.items():
            own += at_size(state, int(size_px), patch_px)["pos_embed"] - self.position(int(size_px))

    @torch.no_grad()
    def to_state(self) -> dict[str, Tensor]:
        """Copies on the CPU, by the names of a `Weights.state`."""
        state = dict(self.vit.state_dict())
        for size_px in self.sizes_px:
            state[own_name("pos_embed", size_px)] = self.position(size_px)
        return {name: value.detach().float().cpu().clone() for name, value in state.items()}
