from dataclasses import replace

import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.params.runtime import RuntimeParams
from pipeline.runtime import prepare_process, resolve_runtime
from tests.made import RUNTIME_PARAMS, SHAPE, runtime


def test_auto_is_resolved_and_threads_are_set():
    before = torch.get_num_threads()
    try:
        found = resolve_runtime(RUNTIME_PARAMS.model_copy(update={"threads": 1}), SHAPE)
        assert (found.backend, found.threads, torch.get_num_threads()) == ("eager", 1, 1)
    finally:
        torch.set_num_threads(before)


def test_no_more_threads_than_a_container_has_cores_for(monkeypatch):
    """Which torch does not know; whoever asks for more gets them."""
    before = torch.get_num_threads()
    try:
        for cores, threads in ((1, 1), (before + 1, before)):
            monkeypatch.setattr("pipeline.runtime.count_cores", lambda cores=cores: cores)
            torch.set_num_threads(before)
            assert resolve_runtime(RUNTIME_PARAMS, SHAPE).threads == threads
            assert resolve_runtime(RUNTIME_PARAMS.model_copy(update={"threads": 3}), SHAPE).threads == 3
    finally:
        torch.set_num_threads(before)


def test_the_low_pass_may_have_a_precision_of_its_own():
    plain = resolve_runtime(RUNTIME_PARAMS, SHAPE)
    mixed = resolve_runtime(RUNTIME_PARAMS.model_copy(update={"low_precision": "bfloat16"}), SHAPE)
    assert mixed.of("low") == replace(plain, precision="bfloat16")
    assert mixed.of("mid") == mixed.of("high") == plain
    same = resolve_runtime(RUNTIME_PARAMS.model_copy(update={"low_precision": "float32"}), SHAPE)
    assert same == plain == plain.of("low")


def test_each_precision_gets_the_backend_that_runs_it(monkeypatch):
    def only(backend, _device, precision, _shape):
        return None if (backend, precision) in {("amx", "float32"), ("avx512", "int8")} else "not here"

    monkeypatch.setattr("pipeline.backends.why_not", only)
    asked = {"backend": "auto", "low_precision": "int8"}
    found = resolve_runtime(RUNTIME_PARAMS.model_copy(update=asked), SHAPE)
    assert (found.of("low").backend, found.of("low").precision) == ("avx512", "int8")
    assert (found.of("high").backend, found.of("high").precision) == ("amx", "float32")


def test_a_low_precision_that_nothing_runs_is_an_error():
    with pytest.raises(PipelineError, match=r"runtime.backend: eager cannot run int8 on cpu"):
        resolve_runtime(RUNTIME_PARAMS.model_copy(update={"low_precision": "int8"}), SHAPE)


def test_the_gpu_that_is_named_is_the_one_of_streams_and_graphs_that_name_none(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("cpu", "cuda", "cuda:1"):
        prepare_process(replace(runtime(), device=torch.device(name)))
    assert chosen == [torch.device("cuda:1")]


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
