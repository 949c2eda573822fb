"""The Vision Transformer: its weights, and a forward pass that keeps the CLS trace.

Pixels are normalised inside the module, so that everything outside handles uint8.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pipeline.architecture import Architecture
from pipeline.zoo import IMAGENET, Normalisation

# Names of what one image size has to itself, and of what it takes the place of: see `own_name`.
OWN_NAME = re.compile(r"(pos_embed|head)_(\d+)px((?:\.\w+)?)")


class Pass(NamedTuple):
    """What one forward pass of B images returns.

    logits (B, C), embedding (B, D): CLS after the final norm, trace (B, L+1, D): CLS after the
    embedding and after every block. All float32.
    """

    logits: Tensor
    embedding: Tensor
    trace: Tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """A state dict of the architecture; `classes` are the wnids in logit order, None where unknown, and
    `normalisation` is that of the pixels.

    Beside timm's names, `pos_embed_<size>px` may hold the position embedding of one image size and
    `head_<size>px.weight` and `.bias` its classifier; other sizes get `pos_embed` resampled, and `head`.
    """

    architecture: Architecture
    state: Mapping[str, Tensor]
    classes: tuple[str, ...] | None
    sha256: str
    normalisation: Normalisation = IMAGENET


class TracedViT(nn.Module):
    """The network at one image size; takes uint8 (B, 3, size, size), returns a `Pass`."""

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Weights, size_px: int) -> None:
        super().__init__()
        self.vit = weights.architecture.build(size_px)
        self.vit.load_state_dict(at_size(weights.state, size_px, self.vit))
        for name, values in weights.normalisation._asdict().items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1) * 255)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Pass:
        vit = self.vit
        tokens = vit.patch_embed((images - self.mean) / self.std)
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(tokens)))  # B, N, D
        steps = [tokens[:, 0]]
        for block in vit.blocks:
            tokens = block(tokens)
            steps.append(tokens[:, 0])
        embedding = vit.norm(tokens[:, 0])
        logits = vit.head(vit.fc_norm(embedding))
        return Pass(logits.float(), embedding.float(), torch.stack(steps, dim=1).float())


def draw_weights(architecture: Architecture, seed: int, native_px: int) -> Weights:
    """Random weights; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = architecture.build(native_px).state_dict()
    return Weights(architecture, state, None, digest(state))


def own_name(name: str, size_px: int) -> str:
    """The state's name for one image size's own `pos_embed`, `head.weight` or `head.bias`."""
    module, dot, value = name.partition(".")
    return f"{module}_{size_px}px{dot}{value}"


def at_size(state: Mapping[str, Tensor], size_px: int, vit: VisionTransformer) -> dict[str, Tensor]:
    """timm's state dict with what the size has to itself; without a position embedding of its own it gets one
    resampled, once."""
    shared = {name: value for name, value in state.items() if not OWN_NAME.fullmatch(name)}
    own = {name: state[own_name(name, size_px)] for name in shared if own_name(name, size_px) in state}
    if "pos_embed" not in own:
        grid = list(vit.patch_embed.grid_size)
        own["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], new_size=grid, num_prefix_tokens=1)
    return {**shared, **own}


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values: the same for any container of the same numbers."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].float().contiguous().cpu()
        found.update(f"{name} {tuple(value.shape)}\n".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()
