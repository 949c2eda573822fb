import numpy as np
import pytest

from pipeline.timing import bootstrap_blocks, is_stable, settle, speedup_bound, spread, summarise_latency


def test_percentiles_only_with_enough_samples():
    assert summarise_latency(np.ones(28)).keys() == {"mean", "p50"}
    assert summarise_latency(np.ones(29)).keys() == {"mean", "p50", "p90"}
    assert summarise_latency(np.ones(299)).keys() == {"mean", "p50", "p90", "p99"}
    assert summarise_latency(np.arange(1.0, 4.0)) == {"mean": 2.0, "p50": 2.0}


def test_spread_is_relative():
    assert spread([10, 11, 12]) == pytest.approx(0.2)


def test_warm_up_ends_when_three_windows_agree():
    windows = iter([9.0, 5.0, 4.0, 4.1, 4.05, 1.0])
    assert settle(lambda: next(windows), within=0.05, at_most=10)
    assert next(windows) == 1.0


def test_warm_up_gives_up_and_says_so():
    windows = iter(range(1, 100))
    assert not settle(lambda: float(next(windows)), within=0.05, at_most=6)
    assert next(windows) == 7


def test_a_drift_is_not_stable():
    assert is_stable(np.ones(30), 0.05)
    assert not is_stable(np.linspace(1, 1.3, 30), 0.05)
    assert not is_stable(np.ones(2), 0.05)


def test_a_hiccup_counts_by_its_share_of_the_time():
    small, large = np.ones(300), np.ones(300)
    small[3], large[3] = 4, 40
    assert is_stable(small, 0.05)
    assert not is_stable(large, 0.05)


def test_a_tail_of_waits_is_not_stable_though_the_medians_agree():
    """Seen beside another process on two cores: medians 21, 22, 21 ms and means 237, 208, 156."""
    busy = (
        np.tile([21.0, 21.0, 21.0, 885.0], 25),
        np.tile([22.0] * 3 + [766.0], 25),
        np.tile([21.0] * 3 + [561.0], 25),
    )
    assert not is_stable(np.concatenate(busy), 0.1)


def test_the_bound_of_a_cascade():
    # The published 2.8 and 9.6 ms at 9.5 %: no more than 2.59 times, whatever was claimed.
    assert speedup_bound(2.8, 9.6, 0.095) == pytest.approx(1 / (2.8 / 9.6 + 0.095))
    assert speedup_bound(5, 10, 0.0) == 2


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        # Pairs share a block's slow moment; the true ratio is 2.
        moment = rng.uniform(1, 3, size=(40, 1))
        blocks = moment * rng.normal([2, 1], 0.1, size=(40, 2))
        estimate = bootstrap_blocks(lambda sums: sums[:, 0] / sums[:, 1], blocks, 0.9, 300, seed=0)
        inside += estimate.ci_low <= 2 <= estimate.ci_high
    # Binomial(200, 0.9), widened for the bootstrap's known shortfall at 40 blocks.
    assert 160 <= inside <= 196


def test_pairs_stay_together():
    """Blocks whose ratio is the same have an interval of no width, however much they differ."""
    blocks = np.array([[2.0, 1.0], [20.0, 10.0], [200.0, 100.0]])
    estimate = bootstrap_blocks(lambda sums: sums[:, 0] / sums[:, 1], blocks, 0.9, 100, seed=0)
    assert estimate == (2.0, 2.0, 2.0)
