"""Weights of ViTs that differ from the plain one by factors and terms that a plain one's weights can hold."""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

# What layer scale multiplies: the last linear layer of attention, and of the MLP.
_SCALED = {"ls1": "attn.proj", "ls2": "mlp.fc2"}
# Of what its pretraining hid, in DINOv2's files.
_UNUSED = {"mask_token"}
_GAMMA = re.compile(r"(blocks\.\d+)\.(ls[12])\.gamma")


def _is_extra(name: str) -> bool:
    return name in _UNUSED or _GAMMA.fullmatch(name) is not None


def fold_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the plain ViT that computes the same; others stay as they are.

    Layer scale (Touvron et al. 2021, CaiT) goes into the layer before it; a class token without a position
    gets one of zeros where there are no registers.
    """
    state = _rename_registers(state)
    folded = {name: value for name, value in state.items() if not _is_extra(name)}
    for match in filter(None, map(_GAMMA.fullmatch, state)):
        layer = f"{match[1]}.{_SCALED[match[2]]}"
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in folded:  # Where it is missing, whoever checks the names says so.
                folded[name] = torch.einsum("o...,o->o...", folded[name], state[match[0]])
    positions = folded.get("pos_embed")
    if (
        positions is not None
        and "reg_token" not in folded
        and positions.ndim == 3
        and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]
    ):
        folded["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return folded


def _rename_registers(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Meta's DINOv2 with registers as timm has it, whose class token holds its own position."""
    names = {"register_tokens", "cls_token", "pos_embed"}
    if any(name not in state or state[name].ndim != 3 for name in names):
        return state
    kept = {name: value for name, value in state.items() if name not in names}
    positions = state["pos_embed"]
    return {
        **kept,
        "reg_token": state["register_tokens"],
        "cls_token": state["cls_token"] + positions[:, :1],
        "pos_embed": positions[:, 1:],
    }
