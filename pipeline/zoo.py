"""What `model.name` may say: the project's own networks, and timm's that are built as those are."""

from difflib import get_close_matches
from itertools import zip_longest
from typing import Any, NamedTuple

import timm
import torch
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.layers.activations import QuickGELU
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from pipeline.architecture import ARCHITECTURES, Architecture
from pipeline.errors import PipelineError


class Normalisation(NamedTuple):
    """Mean and standard deviation of pixels in 0..1, channel order RGB."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


# Of the project's own: what timm calls the same architecture.
_TIMMS_OWN = {"vit_base_patch16": "vit_base_patch16_224"}
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Network(NamedTuple):
    """What a name alone tells of weights; classes (wnids in logit order) is None where it does not.

    others: names that tell more, where weights of this one are normalised in different ways.
    """

    architecture: Architecture
    normalisation: Normalisation
    classes: tuple[str, ...] | None
    others: tuple[str, ...] = ()


def find_network(name: str) -> Network:
    """Of the project's own, or of timm: the name of a model, with or without the tag of its weights.

    Its architecture has no classes where weights of that name come without a classifier. Raises
    PipelineError where nothing has that name, or timm builds it otherwise than a plain ViT.
    """
    if name in ARCHITECTURES:
        others = _list_others(_TIMMS_OWN[name]) if name in _TIMMS_OWN else ()
        return Network(ARCHITECTURES[name], IMAGENET, None, others)
    if name in (old := timm.models.get_deprecated_models()):
        current = old[name] or ""
        if current not in timm.list_pretrained():
            current = current.partition(".")[0]  # timm may name a tag that it has under another name.
        now = f"use {current}" if current else "timm has it no more"
        raise PipelineError(f"model.name: {name} is an old name of timm's; {now}")
    if not timm.is_model(name):
        known = [*ARCHITECTURES, *timm.list_models(["*vit*", "deit*"])]
        near = get_close_matches(name, known)
        hint = f"did you mean {near[0]}?" if near else "use a name of timm's, such as deit_tiny_patch16_224"
        raise PipelineError(f"model.name: neither this project nor timm has a model {name!r}; {hint}")
    model: Any = _build(name)
    pixels = Normalisation(*(tuple(model.pretrained_cfg[key]) for key in Normalisation._fields))
    shape = _describe(model, name)
    if "." in name and not shape.quick_gelu and "QuickGELU" in str(model.pretrained_cfg.get("notes")):
        other = name.replace("_clip_", "_clip_quickgelu_")
        raise PipelineError(f"model.name: the weights of {name} were trained with another GELU; use {other}")
    others = () if "." in name else _list_others(name)
    return Network(shape, pixels, _list_classes(model, name), others)


def _list_others(name: str) -> tuple[str, ...]:
    """timm's names with a tag, where these are normalised in more than one way; else none."""
    found = {each: timm.get_pretrained_cfg(each) for each in timm.list_pretrained(f"{name}.*")}
    ways = {(tuple(cfg.mean), tuple(cfg.std)) for cfg in found.values() if cfg is not None}
    return tuple(found) if len(ways) > 1 else ()


def _build(name: str) -> nn.Module:
    """Without memory for its weights."""
    plain, _, tag = name.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{plain}.*")]
    if tag and tag not in tags:
        raise PipelineError(f"model.name: timm knows no weights {tag!r} of {plain}; it has {', '.join(tags)}")
    with torch.device("meta"):
        return timm.create_model(name)


def _list_classes(model: Any, name: str) -> tuple[str, ...] | None:
    """A tag says which weights these are, and so what their classes mean."""
    subset = infer_imagenet_subset(model.pretrained_cfg) if "." in name else None
    return tuple(ImageNetInfo(subset).label_names()) if subset else None  # type: ignore[no-untyped-call]


def _describe(model: Any, name: str) -> Architecture:
    """The architecture that builds the very same modules, but for what can be folded into plain ones."""
    if not isinstance(model, VisionTransformer):
        raise _refusal(name, "it is no VisionTransformer of timm's")
    block: Any = model.blocks[0]
    if (kind := type(block)) is not Block:
        raise _refusal(name, f"its blocks are {kind.__name__}")
    shape = Architecture(
        name,
        model.patch_embed.patch_size[0],
        model.embed_dim,
        len(model.blocks),
        block.attn.num_heads,
        model.num_classes,
        pre_norm=not isinstance(model.norm_pre, nn.Identity),
        epsilon=block.norm1.eps,
        registers=model.num_reg_tokens,
        quick_gelu=isinstance(block.mlp.act, QuickGELU),
    )
    # What pipeline.folding makes plain.
    scale = {"init_values": 1.0} if hasattr(block.ls1, "gamma") else {}
    no_position = model.no_embed_class or shape.registers > 0
    plain = shape.outline(model.patch_embed.img_size[0], no_embed_class=no_position, **scale)
    for theirs, ours in zip_longest(_list_parts(model), _list_parts(plain), fillvalue="nothing"):
        if theirs != ours:
            raise _refusal(name, f"it has {theirs} where a plain one has {ours}")
    return shape


def _list_parts(model: nn.Module) -> list[str]:
    """Its modules as they print themselves, then its parameters with their shapes."""
    modules = [line.strip() for line in repr(model).splitlines()]
    return modules + [f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items()]


def _refusal(name: str, reason: str) -> PipelineError:
    return PipelineError(
        f"model.name: {name} is no plain ViT: {reason}; use one such as deit_small_patch16_224 or "
        "vit_small_patch16_224 (class token, learned positions), or of this project "
        f"{', '.join(ARCHITECTURES)}"
    )
