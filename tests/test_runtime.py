import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.params.runtime import RuntimeParams
from pipeline.runtime import resolve_runtime
from tests.made import RUNTIME_PARAMS, SHAPE


def test_auto_is_resolved_and_threads_are_set():
    before = torch.get_num_threads()
    try:
        found = resolve_runtime(RUNTIME_PARAMS.model_copy(update={"threads": 1}), SHAPE)
        assert (found.backend, found.threads, torch.get_num_threads()) == ("eager", 1, 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there_is_an_error_not_a_fall_back():
    params = RuntimeParams(device="cuda", backend="auto", precision="float32", batch_size=1, threads=None)
    with pytest.raises(PipelineError, match=r"runtime.device: cuda is not available \(torch sees 0 GPUs\)"):
        resolve_runtime(params, SHAPE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_auto_beside_an_unusable_driver_does_not_fall_back_in_silence(tmp_path, monkeypatch):
    driver = tmp_path / "version"
    driver.write_text("NVRM version")
    monkeypatch.setattr("pipeline.runtime._NVIDIA_DRIVER", driver)
    with pytest.raises(PipelineError, match="auto finds an NVIDIA driver that this torch cannot use"):
        resolve_runtime(RUNTIME_PARAMS.model_copy(update={"device": "auto"}), SHAPE)
