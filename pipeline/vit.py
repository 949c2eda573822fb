"""The Vision Transformer: its weights, and a forward pass that keeps the CLS trace.

Pixels are normalised inside the module, so that everything outside handles uint8.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from pipeline.architecture import Architecture
from pipeline.zoo import IMAGENET, Normalisation

# Names of what one image size has to itself, and of what it takes the place of: see `own_name`.
OWN_NAME = re.compile(r"(pos_embed|patch_embed|head)_(\d+)px((?:\.\w+)*)")


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

    Beside timm's names, `pos_embed_<size>px` may hold the position embedding of one image size,
    `patch_embed_<size>px.proj.weight` its patch embedding, and `head_<size>px.weight` and `.bias` its
    classifier. What has no size in its name counts as that of the size that `pos_embed` is for. Sizes between
    get a mean, weighted by distance; those beyond get what the nearest has.
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
        self.vit = weights.architecture.outline(size_px).to_empty(device="cpu")
        self.vit.load_state_dict(at_size(weights.state, size_px, weights.architecture.patch_px))
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
    return Weights(architecture, state, None, digest(architecture, state))


def own_name(name: str, size_px: int) -> str:
    """The state's name for what one image size has to itself, of `pos_embed`, `patch_embed` or `head`."""
    module, dot, value = name.partition(".")
    return f"{module}_{size_px}px{dot}{value}"


def at_size(state: Mapping[str, Tensor], size_px: int, patch_px: int) -> dict[str, Tensor]:
    """timm's state dict, with what `Weights` says of the size; positions are resampled here, once."""
    of_class = int("reg_token" not in state)  # Beside registers, the class token has no position.
    native_px = patch_px * math.isqrt(state["pos_embed"].shape[1] - of_class)
    shared = {name: value for name, value in state.items() if not OWN_NAME.fullmatch(name)}
    known = {name: {native_px: value} for name, value in shared.items()}
    for name, value in state.items():
        if match := OWN_NAME.fullmatch(name):
            known[match[1] + match[3]][int(match[2])] = value
    known["pos_embed"] = {
        px: resample_abs_pos_embed(value, new_size=[size_px // patch_px] * 2, num_prefix_tokens=of_class)
        for px, value in known["pos_embed"].items()
    }
    return {name: _between(values, size_px) for name, values in known.items()}


def split_positions(position: Tensor, cls_token: Tensor, registers: Tensor | None) -> tuple[Tensor, Tensor]:
    """What comes before the patches, (1, 1 or 1 + R, D), and the patches' positions, (1, N, D)."""
    if registers is None:
        return cls_token + position[:, :1], position[:, 1:]
    return torch.cat([cls_token, registers], dim=1), position


def without_own(weights: Weights, modules: Set[str]) -> Weights:
    """Every size shares what these modules have: `pos_embed`, `patch_embed` or `head`."""
    names = {name for name in weights.state if (match := OWN_NAME.fullmatch(name)) and match[1] in modules}
    state = {name: value for name, value in weights.state.items() if name not in names}
    return replace(weights, state=state, sha256=digest(weights.architecture, state))


def _between(values: Mapping[int, Tensor], size_px: int) -> Tensor:
    """What one size has, from what some sizes have, by size."""
    smaller = max((px for px in values if px <= size_px), default=min(values))
    larger = min((px for px in values if px >= size_px), default=max(values))
    if smaller == larger:
        return values[smaller]
    return torch.lerp(values[smaller], values[larger], (size_px - smaller) / (larger - smaller))


def digest(architecture: Architecture, state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values: the same for any container of the same numbers.

    Of what is computed with them, what neither names nor shapes tell apart counts as well.
    """
    found = hashlib.sha256(b"quick_gelu\n" if architecture.quick_gelu else b"")
    for name in sorted(state):
        value = state[name].float().contiguous().cpu()
        found.update(f"{name} {tuple(value.shape)}\n".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()
