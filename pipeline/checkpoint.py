"""Weights from a file, held against the network that they are for; or random ones."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from unicodedata import normalize

from safetensors import SafetensorError, safe_open
from timm.models import load_state_dict
from torch import Tensor

from pipeline.architecture import Architecture
from pipeline.errors import PipelineError
from pipeline.folding import fold_state
from pipeline.outside import find_outside
from pipeline.params.model import ModelParams
from pipeline.renaming import rename_state
from pipeline.vit import OWN_NAME, Weights, digest, draw_weights, own_name
from pipeline.zoo import Network, Normalisation, find_network

# What an image size may have to itself beside its position embedding.
_OWN = {"patch_embed": ("patch_embed.proj.weight",), "head": ("head.weight", "head.bias")}
# Of names in an error.
_SOME = 6

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_Shapes = Mapping[str, tuple[int, ...]]

# What checkpoints say of an architecture may be older than some of its fields.
_DEFAULTS = {field.name: field.default for field in fields(Architecture) if field.default is not MISSING}


def load_weights(params: ModelParams, native_px: int) -> Weights:
    """Read a file, or draw random weights whose position embedding fits `native_px`."""
    weights = load_backbone(params, native_px)
    if params.weights != "random" and params.classes is None and _is_projection(weights):
        raise PipelineError(
            f"model.weights: {params.weights} has CLIP's projection in place of a classifier; train one on "
            f"your classes (adaptive-vit train --set start={params.weights}), or if it is one, name its "
            "classes as model.classes"
        )
    if not weights.architecture.classes:
        raise PipelineError(
            f"model.weights: {params.weights} has no classifier (head.weight), as {params.name} has none; "
            f"train one on your classes (adaptive-vit train --set start={params.weights}) and name what that "
            "writes"
        )
    if weights.architecture.classes < 2:
        raise PipelineError(
            f"model.weights: {params.weights} has a classifier of one logit, in which no answers can differ; "
            "name weights of two classes or more"
        )
    if params.classes is None:
        return weights
    return replace(weights, classes=_list_classes(find_outside(params.classes), weights.architecture))


def _is_projection(weights: Weights) -> bool:
    """CLIP's, into the space that images share with texts, which timm keeps where a classifier would be."""
    bias = weights.state.get("head.bias")
    untold = weights.classes is None and bias is not None and not bias.any()
    return weights.architecture.pre_norm and untold


def load_backbone(params: ModelParams, native_px: int) -> Weights:
    """As `load_weights`, but without model.classes, and there may be no classifier."""
    network = find_network(params.name)
    if params.weights == "random":
        drawn = draw_weights(network.architecture, params.seed, native_px)
        return replace(drawn, normalisation=network.normalisation)
    return _read_weights(find_outside(params.weights), network)


def _read_weights(path: Path, network: Network) -> Weights:
    """What the file says of itself goes before what its name tells; it may have other classes."""
    if not path.is_file():
        raise PipelineError(
            f"model.weights: {path} is no file that can be read; name a .safetensors or .pth file, "
            "or use: random"
        )
    found, metadata = _read_safetensors(path) if path.suffix == ".safetensors" else _read_saved(path)
    state = fold_state(rename_state(found))
    architecture = network.architecture
    if (head := state.get("head.weight")) is not None and head.ndim == 2:
        architecture = replace(architecture, classes=len(head))
    # First what it says of itself, which explains more than a shape that differs.
    _check_architecture(metadata, architecture, path)
    _check_state(state, architecture, path)
    known = network.classes if architecture == network.architecture else None
    return Weights(
        architecture,
        state,
        _read_classes(metadata, architecture, path) or known,
        digest(architecture, state),
        _read_normalisation(metadata, path) or _settle_normalisation(network, path),
    )


def _settle_normalisation(network: Network, path: Path) -> Normalisation:
    """Of a file that says nothing of it: what its name tells, where that is one thing."""
    if network.others:
        raise PipelineError(
            f"model.weights: {path} does not say how its images are normalised, and weights that are called "
            f"{network.architecture.name} differ in it; name whose they are as model.name: "
            f"{', '.join(network.others[:_SOME])}{', ...' if len(network.others) > _SOME else ''}"
        )
    return network.normalisation


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, and what the file says of itself."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            return state, file.metadata() or {}
    except SafetensorError as error:
        raise PipelineError(f"model.weights: {path} is no whole .safetensors file ({error})") from None


def _read_saved(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What torch.save wrote: tensors, or a run's checkpoint, of which averaged weights go first.

    Nothing in it is executed: what is no tensor and no plain value is an error.
    """
    try:
        found = load_state_dict(str(path), weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PipelineError(
            f"model.weights: {path} is no whole file of tensors as torch.save writes it ({reason}); "
            "save the state_dict alone, or a .safetensors file"
        ) from None
    state = {name: value.float() for name, value in found.items() if isinstance(value, Tensor)}
    return state, {}


def _check_state(state: Mapping[str, Tensor], architecture: Architecture, path: Path) -> None:
    """Names and shapes must be the architecture's; only `pos_embed` may be of any size."""
    whole = architecture.outline(8 * architecture.patch_px).state_dict()
    expected = {name: tuple(value.shape) for name, value in whole.items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    positions = (*found.get("pos_embed", ()), 0, 0)[1]
    side = math.isqrt(positions)
    if 0 < positions == architecture.count_positions(side * architecture.patch_px):
        expected["pos_embed"] = (1, positions, architecture.width)
    for kind, size in {(match[1], int(match[2])) for match in map(OWN_NAME.fullmatch, found) if match}:
        if kind == "pos_embed":
            expected[own_name(kind, size)] = (1, architecture.count_positions(size), architecture.width)
        else:
            expected |= {own_name(name, size): expected[name] for name in _OWN[kind]}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise PipelineError(
                f"model.weights: {path} does not fit model.name {architecture.name}: "
                f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'no such tensor')}"
                f"{_contrast(found, expected)}"
            )


def _contrast(found: _Shapes, expected: _Shapes) -> str:
    """What both networks are, where that differs; empty where it does not, or is not clear."""
    theirs, ours = map(_describe_shapes, (found, expected))
    if not theirs or theirs == ours:
        return ""
    return f"; the file's network has {theirs}, this one {ours}: set model.name to the file's"


def _describe_shapes(shapes: _Shapes) -> str:
    patches = shapes.get("patch_embed.proj.weight", ())
    if len(patches) != 4:
        return ""
    depth = len({match[1] for match in map(_BLOCK.match, shapes) if match})
    registers = shapes.get("reg_token", (0, 0))[1]
    return f"patches of {patches[-1]} px, width {patches[0]}, depth {depth}, {registers} registers"


def _check_architecture(metadata: Mapping[str, str], architecture: Architecture, path: Path) -> None:
    """A checkpoint may say nothing of itself; what it says must be so."""
    found, expected = _parse(metadata, "architecture", path), asdict(architecture)
    whole = {**_DEFAULTS, **found} if isinstance(found, dict) else found
    if whole is not None and whole != expected:
        raise PipelineError(
            f"model.weights: {path} says architecture {json.dumps(found)}, expected {json.dumps(expected)}; "
            "set model.name to what it says, or use a checkpoint of this model"
        )


def _read_normalisation(metadata: Mapping[str, str], path: Path) -> Normalisation | None:
    if (found := _parse(metadata, "normalisation", path)) is None:
        return None
    try:
        read = Normalisation(*(tuple(map(float, found[name])) for name in Normalisation._fields))
    except (KeyError, TypeError, ValueError):
        read = Normalisation((), ())
    if [len(values) for values in read] != [3, 3] or min(read.std) <= 0:
        raise PipelineError(
            f"model.weights: {path} says normalisation {json.dumps(found)}; expected mean and std, three "
            "numbers each, std above 0"
        )
    return read


def _read_classes(
    metadata: Mapping[str, str], architecture: Architecture, path: Path
) -> tuple[str, ...] | None:
    """In logit order; a model may have more logits than classes that it was trained for."""
    found = _parse(metadata, "classes", path)
    if found is None:
        return None
    listed = found if isinstance(found, list) and all(isinstance(name, str) for name in found) else []
    names = [normalize("NFC", name) for name in listed]
    if not 0 < len(set(names)) == len(names) <= architecture.classes:
        raise PipelineError(
            f"model.weights: {path} says classes {json.dumps(found)[:60]}; expected a list of different "
            f"wnids, in the order of the logits, {architecture.classes} at most"
        )
    return tuple(names)


def _list_classes(path: Path, architecture: Architecture) -> tuple[str, ...]:
    """Of a text with a class a line, in logit order."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"model.classes: {path} is no text that can be read ({error}); expected UTF-8, a class a line"
        ) from None
    names = [name for line in lines if (name := normalize("NFC", line.strip()))]
    twice, times = Counter(names).most_common(1)[0] if names else ("", 0)
    if times != 1 or len(names) != architecture.classes:
        found = f"names {twice!r} {times} times" if times > 1 else f"names {len(names)} classes"
        raise PipelineError(
            f"model.classes: {path} {found}; expected each once, in the order of the logits, of which there "
            f"are {architecture.classes}"
        )
    return tuple(names)


def _parse(metadata: Mapping[str, str], name: str, path: Path) -> Any:
    """None where the metadata says nothing of it."""
    try:
        return json.loads(metadata.get(name, "null"))
    except ValueError:
        raise PipelineError(
            f"model.weights: {path} says {name} {metadata[name]!r}, which is no JSON"
        ) from None
