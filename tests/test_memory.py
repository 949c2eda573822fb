import numpy as np
import pytest
import torch

from pipeline.malloc import keep_freed_memory
from pipeline.memory import peak_memory_mb, process_peak_mb


def test_memory_is_that_of_the_work_alone():
    held = np.ones(20_000_000)  # 160 MB that the process holds already

    def work() -> None:
        assert (np.ones(12_500_000) * held[0]).sum() > 0  # 100 MB, twice for the product

    peak_mb = peak_memory_mb(work, torch.device("cpu"))
    if peak_mb is None:
        pytest.skip("memory of one piece of work is measured on Linux only")
    assert 190 < peak_mb < 240


def test_memory_that_the_parent_freed_and_kept_does_not_hide_the_work():
    def work() -> None:
        assert np.ones(12_500_000).sum() > 0  # 100 MB

    keep_freed_memory()
    spare = [np.ones(12_500_000) for _ in range(4)]
    del spare
    peak_mb = peak_memory_mb(work, torch.device("cpu"))
    if peak_mb is None:
        pytest.skip("memory of one piece of work is measured on Linux only")
    assert 95 < peak_mb < 130


def test_a_failing_piece_of_work_has_no_memory(capfd):
    def work() -> None:
        raise MemoryError

    assert peak_memory_mb(work, torch.device("cpu")) is None
    assert "MemoryError" in capfd.readouterr().err


def test_the_process_peak_never_falls():
    first = process_peak_mb(torch.device("cpu"))
    if first is None:
        pytest.skip("memory is measured on Linux only")
    assert np.ones(25_000_000).sum() > 0
    assert process_peak_mb(torch.device("cpu")) >= first > 50
