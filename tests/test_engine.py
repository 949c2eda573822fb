import torch
from torchvision.transforms.v2 import functional

from pipeline.engine import EagerEngine
from pipeline.runtime import Runtime
from pipeline.vit import TracedViT
from tests.made import canvases, engine, weights


def test_the_low_input_is_the_canvas_resized():
    images = canvases(3)
    small = functional.resize(images, [32, 32], antialias=True)
    expected = TracedViT(weights(), 32)(small)
    found = engine(32).run(images)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_bfloat16_is_close_and_returns_float32():
    runtime = Runtime(torch.device("cpu"), "eager", "bfloat16", torch.get_num_threads())
    half = EagerEngine(weights(), 32, runtime).run(canvases(4))
    full = engine(32).run(canvases(4))
    assert half.embedding.dtype == torch.float32
    error = (half.embedding - full.embedding).norm(dim=1) / full.embedding.norm(dim=1)
    assert 0 < error.max() < 0.05
