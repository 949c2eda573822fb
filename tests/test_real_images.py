"""Images through the stages, recomputed with timm and torchvision alone."""

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional

from pipeline.sample import draw_sample
from stages.cli import main
from tests.conftest import REAL_ARCHIVE, write_project

SHAPE = {"patch_size": 4, "embed_dim": 192, "depth": 12, "num_heads": 3, "num_classes": 200}


def run(*words):
    found = CliRunner().invoke(main, list(words))
    assert found.exit_code == 0, found.output


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Of photographs where they are here, else of the built-in sample."""
    folder = tmp_path_factory.mktemp("tables")
    archive = REAL_ARCHIVE
    if not archive.exists():
        archive = folder / "sample.zip"
        draw_sample(archive)
    with pytest.MonkeyPatch.context() as patch:
        write_project(folder)
        patch.chdir(folder)
        few = ("--set", "data.calibration_images=30", "--set", "data.evaluation_images=30")
        run("prepare", "--archive", str(archive), *few)
        run("extract", "low")
        run("extract", "high")
        run("delta")
        run("fit", "--set", "bootstrap=100")
    return folder


def model(size_px):
    torch.manual_seed(0)
    state = VisionTransformer(img_size=64, **SHAPE).state_dict()
    grid = [size_px // 4] * 2
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, num_prefix_tokens=1)
    network = VisionTransformer(img_size=size_px, **SHAPE).eval()
    network.load_state_dict(state)
    return network


@torch.inference_mode()
def embed(network, image):
    """Embedding (192,) and mean CLS step of one image, uint8."""
    steps = []
    hooks = [network.norm_pre, *network.blocks]
    handles = [part.register_forward_hook(lambda _m, _i, out: steps.append(out[0, 0])) for part in hooks]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    embedding = network.forward_features(functional.normalize(image[None] / 255, mean.tolist(), std.tolist()))
    for handle in handles:
        handle.remove()
    change = torch.stack([(b - a).norm() for a, b in pairwise(steps)]).mean()
    return embedding[0, 0], change.item()


def test_delta_and_proxy_are_those_recomputed_from_weights_and_images(tables):
    images = pl.read_parquet(tables / "data/images.parquet")
    deltas = pl.read_parquet(tables / "data/deltas.parquet")
    proxies = pl.read_csv(tables / "metrics/plots/proxy_delta.csv")
    expected = deltas.join(proxies.select("image_id", "proxy"), on="image_id", how="left")
    low_model, high_model = model(32), model(64)
    compared = 0
    for image_id, jpeg in images.select("image_id", "jpeg").iter_rows():
        pixels = decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), ImageReadMode.RGB)
        low, change = embed(low_model, functional.resize(pixels, [32, 32], antialias=True))
        high, _ = embed(high_model, pixels)
        row = expected.filter(image_id=image_id).to_dicts()[0]
        assert row["delta"] == pytest.approx((low - high).norm().item(), abs=1e-4)
        if row["split"] == "evaluation":
            assert row["proxy"] == pytest.approx(change, abs=1e-4)
            compared += 1
    assert compared == 30


def test_random_weights_know_no_classes_so_nothing_is_said_of_accuracy(tables):
    metrics = json.loads((tables / "metrics/delta.json").read_text())
    assert "accuracy" not in metrics
    assert np.isfinite(metrics["delta"]["max"])
