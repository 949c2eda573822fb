"""Weights under timm's names: those of transformers' ViTForImageClassification, those inside a module."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_PREFIX = "vit."
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
# Layer scale, as Meta's DeiT III has it.
_GAMMA = re.compile(r"^(blocks\.\d+)\.gamma_([12])$")
# In the order in which timm has them in one matrix.
_ATTENTION = tuple(f"attention.attention.{name}" for name in ("query", "key", "value"))
_IN_LAYER = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_OTHERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
    "classifier.weight": "head.weight",
    "classifier.bias": "head.bias",
}


def rename_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by timm's names; names of neither stay, for whoever checks them.

    A first part that all names share, such as `model.`, is that of a module around the network.
    """
    state = {_GAMMA.sub(r"\1.ls\2.gamma", name): value for name, value in _unwrap(state).items()}
    found = {name.removeprefix(_PREFIX): value for name, value in state.items()}
    if not any(map(_LAYER.fullmatch, found)):
        return dict(state)
    renamed = {_rename(name): value for name, value in found.items()}
    for name in [name for name in renamed if _ATTENTION[0] in name]:
        parts = [name.replace(_ATTENTION[0], part) for part in _ATTENTION]
        if all(part in renamed for part in parts):
            joined = torch.cat([renamed.pop(part) for part in parts])
            renamed[name.replace(_ATTENTION[0], "attn.qkv")] = joined
    return renamed


def _unwrap(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    first = {name.partition(".")[0] for name in state}
    if len(first) != 1 or not all("." in name for name in state):
        return state
    return _unwrap({name.partition(".")[2]: value for name, value in state.items()})


def _rename(name: str) -> str:
    match = _LAYER.fullmatch(name)
    if match is None:
        return _OTHERS.get(name, name)
    return f"blocks.{match[1]}.{_IN_LAYER.get(match[2], match[2])}.{match[3]}"
