import numpy as np
import pytest
import torch

from pipeline.malloc import keep_freed_memory
from pipeline.memory import peak_memory_mb
from pipeline.profile import count_flops, profile_roles
from tests.made import engine, runtime, weights


def flops_by_hand(tokens: int) -> int:
    """Two operations per multiply-add, of every matrix product of static_vit at `tokens` tokens."""
    width, depth, classes, patch_values = 192, 12, 200, 3 * 4 * 4
    patches = (tokens - 1) * patch_values * width
    projections = tokens * (width * 3 * width + width * width + 2 * width * 4 * width)
    attention = 2 * tokens * tokens * width
    return 2 * (patches + depth * (projections + attention) + width * classes)


@pytest.mark.parametrize(("size_px", "tokens"), [(32, 65), (64, 257)])
def test_flops_are_those_counted_by_hand(size_px, tokens):
    assert count_flops(engine(size_px).model, size_px) == flops_by_hand(tokens)


def test_costs_of_both_roles():
    costs = profile_roles(weights(), {"low": 32, "high": 64}, runtime(), runs=30, within=0.5)
    assert costs["low"]["tokens"] == 65
    assert costs["high"]["parameters"] - costs["low"]["parameters"] == (257 - 65) * 192
    assert costs["low"]["latency_ms"].keys() == {"mean", "p50", "p90"}
    assert costs["flops_ratio"] == flops_by_hand(257) / flops_by_hand(65)
    assert costs["latency_ratio"] > 1


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
