import numpy as np
import pytest
from scipy.stats import norm

from pipeline.paired import interval_of_difference


def outcomes(more, less, count):
    return np.array([1.0] * more + [-1.0] * less + [0.0] * (count - more - less))


def test_where_nothing_differs_the_interval_still_has_a_width():
    """Then the score is n d^2 / (d (1 - d)), which reaches z^2 at z^2 / (n + z^2)."""
    found = interval_of_difference(outcomes(0, 0, 400), 0.9)
    limit = (square := norm.ppf(0.95) ** 2) / (400 + square)
    assert found.value == 0
    assert (found.ci_low, found.ci_high) == (pytest.approx(-limit), pytest.approx(limit))


def test_many_differences_give_the_interval_of_a_mean():
    values = outcomes(400, 300, 4000)
    half = norm.ppf(0.95) * values.std() / np.sqrt(4000)
    found = interval_of_difference(values, 0.9)
    assert found.ci_low == pytest.approx(found.value - half, abs=5e-4)
    assert found.ci_high == pytest.approx(found.value + half, abs=5e-4)


def test_what_is_lost_and_what_is_won_mirror_each_other():
    lost, won = (interval_of_difference(outcomes(*counts, 50), 0.95) for counts in ((7, 2), (2, 7)))
    assert lost.value == -won.value
    assert (lost.ci_low, lost.ci_high) == (pytest.approx(-won.ci_high), pytest.approx(-won.ci_low))


@pytest.mark.parametrize("side", [1, -1])
def test_all_on_one_side_ends_there(side):
    found = interval_of_difference(side * np.ones(5), 0.9)
    assert found.value == side
    assert sorted(map(abs, (found.ci_low, found.ci_high)))[1] == pytest.approx(1)
    assert -1 <= found.ci_low < found.ci_high <= 1


@pytest.mark.parametrize(("lost", "won"), [(0.0005, 0.0), (0.001, 0.0002), (0.01, 0.008)])
def test_it_covers_the_truth_however_rare_a_loss_is(lost, won):
    """Of 600 draws of 2,000 images, at 0.9; resampled, it covers 0.0005 in three draws of five."""
    drawn = np.random.default_rng(0).multinomial(2000, [lost, won, 1 - lost - won], size=600)
    intervals = [interval_of_difference(outcomes(more, less, 2000), 0.9) for more, less, _ in drawn]
    covered = np.mean([found.ci_low <= lost - won <= found.ci_high for found in intervals])
    assert covered > 0.87
