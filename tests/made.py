"""Small things that several tests need: an images table, weights, an engine, a fitted policy."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from pipeline.architecture import ARCHITECTURES
from pipeline.checkpoint import load_weights
from pipeline.engines.base import Spec
from pipeline.engines.eager import EagerEngine
from pipeline.params.model import ModelParams
from pipeline.params.runtime import RuntimeParams
from pipeline.policy import Policy
from pipeline.proxies import cls_change
from pipeline.runtime import Runtime, resolve_runtime
from pipeline.tables import IMAGES, write_table
from pipeline.vit import Weights

RUNTIME_PARAMS = RuntimeParams(device="cpu", backend="eager", precision="float32", batch_size=4, threads=None)
SHAPE = ARCHITECTURES["static_vit"]


def runtime() -> Runtime:
    return resolve_runtime(RUNTIME_PARAMS, SHAPE)


@cache
def weights() -> Weights:
    return load_weights(ModelParams(name="static_vit", weights="random", seed=0), native_px=64)


def spec(size_px: int, backend: str = "eager", precision: str = "float32") -> Spec:
    params = RUNTIME_PARAMS.model_copy(update={"backend": backend, "precision": precision})
    runtime = resolve_runtime(params, SHAPE)
    return Spec(weights(), 64, size_px, runtime, cls_change)


@cache
def engine(size_px: int, batch_size: int = 64) -> EagerEngine:
    return EagerEngine(spec(size_px), batch_size)


def canvases(count: int, size_px: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Noise of a few sizes, enlarged: images that differ in coarse and in fine structure.
    sizes = [4, 8, 16, 64]
    images = [
        torch.nn.functional.interpolate(
            torch.rand(1, 3, sizes[i % 4], sizes[i % 4], generator=generator) * 255, size=size_px
        )
        for i in range(count)
    ]
    return torch.cat(images).to(torch.uint8)


def jpeg(seed: int, size_px: int = 64, mode: str = "RGB") -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).resize((size_px, size_px)).convert(mode).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def images_table(path: Path, count: int, wnids: tuple[str, ...] = ("n1", "n2")) -> Path:
    """Half calibration, half evaluation; ids val/val_000.JPEG and so on."""
    rows = range(count)
    columns = {
        "image_id": [f"val/val_{i:03d}.JPEG" for i in rows],
        "split": ["calibration" if i < count // 2 else "evaluation" for i in rows],
        "wnid": [wnids[i % len(wnids)] for i in rows],
        "label": [i % len(wnids) for i in rows],
        "jpeg": [jpeg(i, mode="L" if i % 5 == 0 else "RGB") for i in rows],
    }
    write_table(
        path,
        pa.table(columns, schema=IMAGES),
        {"kind": "images", "classes": [[w, w] for w in wnids], "seed": 0},
    )
    return path


def policy(threshold: float, direction: int = 1, proxy: str = "cls_change") -> Policy:
    return Policy(
        oracle="delta",
        proxy=proxy,
        direction=direction,
        threshold=threshold,
        rule="fixed",
        value=threshold,
        calibration={"kind": "isotonic", "x": [0.0, 1.0], "y": [0.0, 1.0]},
        calibration_images=2,
        made_for={},
    )
