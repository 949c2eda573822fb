import numpy as np
import pytest

from pipeline.deferral import (
    accuracy_curve,
    agreement_curve,
    agreement_over_random,
    area_over_random,
    capture,
    chance_of_agreement,
    chance_of_no_more,
    draw_weights,
    escalated_first,
    gain_over_random,
)

RATES = np.array([0.0, 0.25, 0.5, 1.0])


def gain(scores, oracle, resamples=200):
    weights = draw_weights(len(oracle), resamples, seed=0)
    return gain_over_random(np.asarray(scores, float), np.asarray(oracle, float), weights, 0.9)


def area_by_pairs(scores, oracle, counts):
    """Of one resample, written out: an image is escalated behind all larger scores and half of its equals."""
    scores, oracle = np.repeat(scores, counts), np.repeat(oracle, counts)
    behind = (scores > scores[:, None]).mean(axis=1) + (scores == scores[:, None]).mean(axis=1) / 2
    return (oracle * (0.5 - behind)).sum() / oracle.sum()


def test_largest_score_first_and_nan_before_all():
    assert escalated_first(np.array([1.0, np.nan, 3.0, 1.0])).tolist() == [1, 2, 0, 3]


def test_agreement_rises_by_what_is_mended():
    agree = np.array([True, False, False, True])
    good, bad = np.array([0.0, 3.0, 2.0, 1.0]), np.array([3.0, 0.0, 1.0, 2.0])
    assert agreement_curve(good, agree, RATES).tolist() == [0.5, 0.75, 1.0, 1.0]
    assert agreement_curve(bad, agree, RATES).tolist() == [0.5, 0.5, 0.5, 1.0]


def test_the_curves_average_over_the_orders_of_a_tie():
    scores = np.array([2.0, 2.0, 1.0, 1.0])
    low, high = np.array([False, True, True, False]), np.array([True, True, True, True])
    for rows in ([0, 1, 2, 3], [1, 0, 3, 2]):
        curve = accuracy_curve(scores[rows], low[rows], high[rows], RATES)
        assert curve.tolist() == [0.5, 0.625, 0.75, 1.0]
        curve = agreement_curve(np.ones(4), (low == high)[rows], RATES)
        assert curve.tolist() == [0.5, 0.625, 0.75, 1.0]


def test_nan_ties_with_nan_before_all():
    assert capture(np.array([1.0, np.nan, np.nan]), np.array([5, 0, 2])).tolist() == [0, 1, 2, 7]


def test_gain_is_one_for_the_oracle_itself_and_minus_one_for_its_reverse():
    oracle = np.arange(8.0)
    assert gain(oracle, oracle).value == pytest.approx(1)
    assert gain(-oracle, oracle).value == pytest.approx(-1)


def test_gain_by_hand():
    # Oracle 0, 0, 1: best order captures all first (area 5/6), this one second (area 1/2).
    assert gain([2, 0, 1], [0, 0, 1]).value == pytest.approx(0)
    # Oracle 0, 1, 3 in order 1, 3, 0: (1/4)(5/6) + (3/4)(1/2) = 7/12; best: (3/4)(5/6) + (1/4)(1/2) = 3/4.
    assert gain([0, 2, 1], [0, 1, 3]).value == pytest.approx((7 / 12 - 1 / 2) / (3 / 4 - 1 / 2))


def test_ties_are_neither_better_nor_worse_than_random():
    oracle = np.arange(8.0)
    assert gain(np.ones(8), oracle).value == pytest.approx(0)
    assert gain(np.ones(8), oracle[::-1]).value == pytest.approx(0)


@pytest.mark.parametrize("levels", [1, 2, 5, None])
def test_every_resample_averages_over_its_own_ties(levels):
    rng = np.random.default_rng(3)
    scores = rng.integers(levels, size=40).astype(float) if levels else rng.normal(size=40)
    oracle, weights = rng.exponential(size=40), draw_weights(40, 20, seed=0)
    by_hand = [area_by_pairs(scores, oracle, row.astype(int)) for row in weights]
    assert area_over_random(scores, oracle, weights.astype(float)) == pytest.approx(by_hand, abs=1e-12)


def test_a_constant_oracle_has_no_gain():
    assert gain(np.arange(8), np.ones(8)) is None


@pytest.mark.parametrize("tied", [False, True])
def test_the_interval_covers_the_truth_as_often_as_it_says(tied):
    """200 draws of a proxy without any relation to the oracle: zero lies inside nine times out of ten."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        scores = rng.normal(size=150)
        found = gain(scores > 0 if tied else scores, rng.exponential(size=150))
        inside += found.ci_low <= 0 <= found.ci_high
    # Binomial(200, 0.9): fewer than 165 or more than 195 has a chance below 1 in 1000.
    assert 165 <= inside <= 195


def test_chance_by_hand_and_against_draws():
    """Five images, two disagreements: three escalated at random meet both in 3 of 10 ways."""
    agree = np.array([False, False, True, True, True])
    escalated = np.array([True, True, True, False, False])
    assert chance_of_agreement(escalated, agree) == pytest.approx(0.3)
    assert chance_of_agreement(~escalated, agree) == 1
    assert chance_of_no_more(~escalated, agree) == pytest.approx(0.3)
    assert chance_of_no_more(escalated, agree) == 1
    rng = np.random.default_rng(0)
    draws = [chance_of_agreement(rng.permutation(20) < 18, np.arange(20) >= 6) for _ in range(2000)]
    assert np.mean(np.array(draws) <= 0.5) <= 0.5 + 3 * 0.5 / 2000**0.5


def test_agreement_over_random_by_hand():
    agree = np.array([True, False, False, True])
    escalated = np.array([False, True, False, False])
    # One of two disagreements mended at rate 1/4: 1/4 - 1/4 * 1/2.
    found = agreement_over_random(escalated, agree, draw_weights(4, 200, seed=0), 0.9)
    assert found.value == pytest.approx(1 / 8)


def test_the_bootstrap_is_reproducible():
    rng = np.random.default_rng(2)
    scores, oracle = rng.normal(size=50), rng.normal(size=50)
    assert gain(scores, oracle) == gain(scores, oracle)
