import pytest
import torch
from torchvision.transforms.v2 import functional

from pipeline.engine import EagerEngine
from pipeline.errors import PipelineError
from pipeline.params.runtime import RuntimeParams
from pipeline.runtime import Runtime, resolve_runtime
from pipeline.vit import TracedViT
from tests.made import RUNTIME_PARAMS, canvases, engine, weights


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


def test_auto_is_resolved_and_threads_are_set():
    before = torch.get_num_threads()
    try:
        found = resolve_runtime(RUNTIME_PARAMS.model_copy(update={"threads": 1}))
        assert (found.backend, found.threads, torch.get_num_threads()) == ("eager", 1, 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there_is_an_error_not_a_fall_back():
    params = RuntimeParams(device="cuda", backend="auto", precision="float32", batch_size=1, threads=None)
    with pytest.raises(PipelineError, match=r"runtime.device: cuda is not available \(torch sees 0 GPUs\)"):
        resolve_runtime(params)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_auto_beside_an_unusable_driver_does_not_fall_back_in_silence(tmp_path, monkeypatch):
    driver = tmp_path / "version"
    driver.write_text("NVRM version")
    monkeypatch.setattr("pipeline.runtime._NVIDIA_DRIVER", driver)
    with pytest.raises(PipelineError, match="auto finds an NVIDIA driver that this torch cannot use"):
        resolve_runtime(RUNTIME_PARAMS.model_copy(update={"device": "auto"}))
