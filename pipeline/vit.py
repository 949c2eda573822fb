"""The Vision Transformer: weights, one module per role, and a forward pass that keeps the CLS trace.

Pixels are normalised inside the module, so that everything outside handles uint8.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pipeline.architecture import Architecture
from pipeline.errors import PipelineError
from pipeline.outside import find_outside
from pipeline.params.model import ModelParams
from pipeline.zoo import IMAGENET, Network, Normalisation, find_network

# Names of what one image size has to itself, and of what it takes the place of: see `own_name`.
_OWN = re.compile(r"(pos_embed|head)_(\d+)px((?:\.\w+)?)")


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


def load_weights(params: ModelParams, native_px: int) -> Weights:
    """Read a .safetensors file, or draw random weights whose position embedding fits `native_px`."""
    network = find_network(params.name)
    if params.weights == "random":
        return replace(
            draw_weights(network.architecture, params.seed, native_px), normalisation=network.normalisation
        )
    return _read_weights(find_outside(params.weights), network)


def draw_weights(architecture: Architecture, seed: int, native_px: int) -> Weights:
    """Random weights; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = architecture.build(native_px).state_dict()
    return Weights(architecture, state, None, _digest(state))


def own_name(name: str, size_px: int) -> str:
    """The state's name for one image size's own `pos_embed`, `head.weight` or `head.bias`."""
    module, dot, value = name.partition(".")
    return f"{module}_{size_px}px{dot}{value}"


def at_size(state: Mapping[str, Tensor], size_px: int, vit: VisionTransformer) -> dict[str, Tensor]:
    """timm's state dict with what the size has to itself; without a position embedding of its own it gets one
    resampled, once."""
    shared = {name: value for name, value in state.items() if not _OWN.fullmatch(name)}
    own = {name: state[own_name(name, size_px)] for name in shared if own_name(name, size_px) in state}
    if "pos_embed" not in own:
        grid = list(vit.patch_embed.grid_size)
        own["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], new_size=grid, num_prefix_tokens=1)
    return {**shared, **own}


def _read_weights(path: Path, network: Network) -> Weights:
    """What the file says of itself goes before what its name tells; it may have other classes."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except OSError:
        raise PipelineError(
            f"model.weights: {path} is no file that can be read; name a .safetensors file, or use: random"
        ) from None
    except SafetensorError as error:
        raise PipelineError(f"model.weights: {path} is no whole .safetensors file ({error})") from None
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
        _digest(state),
        _read_normalisation(metadata, path) or network.normalisation,
    )


def _check_state(state: Mapping[str, Tensor], architecture: Architecture, path: Path) -> None:
    """Names and shapes must be the architecture's; only `pos_embed` may be of any size."""
    whole = architecture.build(8 * architecture.patch_px).state_dict()
    expected = {name: tuple(value.shape) for name, value in whole.items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    tokens = found.get("pos_embed", (0, 0, 0))[1]
    if round(max(tokens - 1, 0) ** 0.5) ** 2 + 1 == tokens:
        expected["pos_embed"] = (1, tokens, architecture.width)
    for kind, size in {(match[1], int(match[2])) for match in map(_OWN.fullmatch, found) if match}:
        if kind == "pos_embed":
            expected[own_name(kind, size)] = (1, architecture.count_tokens(size), architecture.width)
        else:
            expected |= {own_name(name, size): expected[name] for name in ("head.weight", "head.bias")}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise PipelineError(
                f"model.weights: {path} does not fit model.name {architecture.name}: "
                f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'no such tensor')}"
            )


def _check_architecture(metadata: Mapping[str, str], architecture: Architecture, path: Path) -> None:
    """A checkpoint may say nothing of itself; what it says must be so."""
    found, expected = _parse(metadata, "architecture", path), asdict(architecture)
    if found is not None and found != expected:
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
    names = found if isinstance(found, list) and all(isinstance(name, str) for name in found) else []
    if not 0 < len(set(names)) == len(names) <= architecture.classes:
        raise PipelineError(
            f"model.weights: {path} says classes {json.dumps(found)[:60]}; expected a list of different "
            f"wnids, in the order of the logits, {architecture.classes} at most"
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


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values: the same for any container of the same numbers."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].float().contiguous().cpu()
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
