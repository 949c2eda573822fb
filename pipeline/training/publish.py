"""From a finished run to the checkpoint that ships, and what that checkpoint can do."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from scipy.stats import binomtest
from torch import Tensor

from pipeline.architecture import Architecture
from pipeline.archive import Archive
from pipeline.engines.base import Spec
from pipeline.engines.build import build_engine
from pipeline.files import whole_file
from pipeline.images import decode_canvas
from pipeline.params.model import Role
from pipeline.runtime import Runtime
from pipeline.vit import NORMALISATION, Weights

_CONFIDENCE = 0.95


def write_weights(
    path: Path,
    architecture: Architecture,
    state: Mapping[str, Tensor],
    classes: list[str],
    about: Mapping[str, Any],
) -> None:
    """float16 tensors; the metadata describes architecture, classes, normalisation and `about`, as JSON."""
    described = {
        "architecture": asdict(architecture),
        "normalisation": NORMALISATION,
        "classes": classes,
        **about,
    }
    metadata = {name: json.dumps(value) for name, value in described.items()}
    with whole_file(path) as temporary:
        save_file({name: value.half().contiguous() for name, value in state.items()}, temporary, metadata)


def score_validation(
    archive: Archive,
    weights: Weights,
    canvas_px: int,
    sizes_px: Mapping[Role, int],
    runtime: Runtime,
    batch_size: int,
    advance: Callable[[int], object],
) -> dict[Role, dict[str, float]]:
    """Top-1 on all validation images of the archive, by role, with a Wilson interval at 95 %."""
    labels = {wnid: label for label, (wnid, _) in enumerate(archive.classes)}
    expected = torch.tensor([labels[image.wnid] for image in archive.labelled])
    canvases = torch.stack([decode_canvas(archive.read(i.member), canvas_px) for i in archive.labelled])
    found: dict[Role, dict[str, float]] = {}
    for role, size_px in sizes_px.items():
        engine = build_engine(Spec(weights, canvas_px, size_px, runtime), batch_size)
        right = 0
        for part, wanted in zip(canvases.split(batch_size), expected.split(batch_size), strict=True):
            right += int((engine.run(engine.upload(part)).logits.argmax(1).cpu() == wanted).sum())
            advance(len(part))
        found[role] = _accuracy(right, len(expected))
    return found


def _accuracy(right: int, count: int) -> dict[str, float]:
    interval = binomtest(right, count).proportion_ci(_CONFIDENCE, method="wilson")
    return {"accuracy": right / count, "ci_low": float(interval.low), "ci_high": float(interval.high)}
