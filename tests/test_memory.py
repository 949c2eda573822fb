import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.malloc import keep_freed_memory
from pipeline.memory import peak_memory_mb, process_peak_mb
from tests.machines import skip_without_memory

CPU = torch.device("cpu")


def take(mb: int) -> None:
    assert np.ones(mb * 125_000).sum() > 0


def fail() -> None:
    raise ValueError("not this way")


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_memory_is_that_of_the_work_alone():
    held = np.ones(20_000_000)  # 160 MB that the process holds already
    # Freed and kept by this process: must not hide what the work takes.
    keep_freed_memory()
    spare = [np.ones(12_500_000) for _ in range(4)]
    del spare
    skip_without_memory()
    peak_mb = peak_memory_mb(partial(take, 100), CPU)
    assert 95 < peak_mb < 130
    assert peak_memory_mb(partial(take, 300), CPU) - peak_mb == pytest.approx(200, abs=20)
    assert held.sum() > 0


MAPPED = []


def read_mapped(path: Path) -> None:
    MAPPED.append(np.memmap(path, dtype=np.uint8, mode="r"))
    assert MAPPED[0].sum() == 0


def hold(tensors: list[torch.Tensor], mb: int) -> None:
    assert len(tensors) == 300
    take(mb)


def test_files_that_are_mapped_as_libraries_are_and_what_was_there_before_are_not_charged(tmp_path):
    (tmp_path / "file").write_bytes(bytes(100_000_000))
    skip_without_memory()
    assert peak_memory_mb(partial(read_mapped, tmp_path / "file"), CPU) < 20
    # Also more tensors than a process can be handed descriptors of.
    held = [torch.zeros(100_000) for _ in range(300)]
    assert 95 < peak_memory_mb(partial(hold, held, 100), CPU) < 130


def test_work_that_fails_says_why_and_work_that_is_killed_has_no_memory():
    with pytest.raises(ValueError, match="not this way"):
        peak_memory_mb(fail, CPU)
    assert peak_memory_mb(end, CPU) is None


def test_the_process_peak_never_falls():
    first = process_peak_mb(CPU)
    if first is None:
        pytest.skip("memory is measured on Linux only")
    assert np.ones(25_000_000).sum() > 0
    assert process_peak_mb(CPU) >= first > 50
