import math

import numpy as np
import pytest

from pipeline.calibration import expected_oracle
from pipeline.regression import calibrate, learn_direction, learn_proxy, rank_correlation

ONE_TO_FOUR = np.array([1.0, 2.0, 3.0, 4.0])


def test_direction_is_the_sign_of_the_rank_correlation():
    assert learn_direction(ONE_TO_FOUR, np.array([0.0, 1.0, 8.0, 9.0])) == 1
    assert learn_direction(ONE_TO_FOUR, np.array([9.0, 8.0, 1.0, 0.0])) == -1


def test_without_any_order_the_direction_is_up():
    assert learn_direction(ONE_TO_FOUR, np.ones(4)) == 1
    assert math.isnan(rank_correlation(ONE_TO_FOUR, np.ones(4)))


def test_isotonic_pools_what_falls():
    # 3 and 1 fall, so both become their mean 2.
    learned = calibrate("isotonic", ONE_TO_FOUR, np.array([0.0, 3.0, 1.0, 5.0]))
    np.testing.assert_allclose(expected_oracle(learned, ONE_TO_FOUR), [0, 2, 2, 5])


def test_isotonic_is_flat_outside_and_straight_between():
    learned = calibrate("isotonic", np.array([0.0, 1.0]), np.array([2.0, 4.0]))
    np.testing.assert_allclose(expected_oracle(learned, np.array([-9.0, 0.25, 9.0])), [2, 2.5, 4])


def test_linear_is_least_squares():
    learned = calibrate("linear", ONE_TO_FOUR, 3 * ONE_TO_FOUR - 1)
    np.testing.assert_allclose(expected_oracle(learned, np.array([0.0, 10.0])), [-1, 29])


def test_linear_never_falls():
    learned = calibrate("linear", ONE_TO_FOUR, -ONE_TO_FOUR)
    np.testing.assert_allclose(expected_oracle(learned, np.array([-5.0, 50.0])), [-2.5, -2.5])


@pytest.mark.parametrize("kind", ["isotonic", "linear"])
def test_a_constant_proxy_expects_the_mean(kind):
    learned = calibrate(kind, np.ones(4), np.array([1.0, 2.0, 3.0, 6.0]))
    np.testing.assert_allclose(expected_oracle(learned, np.array([0.0, 1.0, 7.0])), [3, 3, 3])


@pytest.mark.parametrize("kind", ["isotonic", "linear"])
def test_the_map_is_monotone(kind):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=200)
    learned = calibrate(kind, scores, scores + rng.normal(size=200))
    assert (np.diff(expected_oracle(learned, np.linspace(-5, 5, 500))) >= 0).all()


def test_the_learned_proxy_looks_only_at_the_columns_that_predict_best_in_cross_validation():
    rng = np.random.default_rng(5)
    features = rng.normal(size=(400, 60))
    event = (features[:, -10] + features[:, -3] + 0.5 * rng.normal(size=400) > 1).astype(float)
    narrow = np.array(learn_proxy(features, event).weights)
    assert narrow.shape == (60,)
    assert not narrow[:-10].any()
    assert narrow[[-10, -3]].min() > 5 * np.abs(narrow[-9:-3]).max()
    wide = np.array(learn_proxy(features, features[:, 0] + 0.1 * rng.normal(size=400)).weights)
    assert np.argmax(np.abs(wide)) == 0
