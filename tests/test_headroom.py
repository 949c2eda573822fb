import numpy as np

from pipeline.deferral import Interval
from pipeline.headroom import Headroom, measure_headroom
from pipeline.signals import describe_headroom
from tests.test_fit import params


def made(count, seed=0):
    """An event that follows from the product of two features, which no weighted sum of them shows."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 3))
    event = rng.random(count) < 1 / (1 + np.exp(-3 * features[:, 0] * features[:, 1]))
    return features, event, np.arange(count) % 2 == 0


def test_trees_find_what_a_sum_of_the_features_cannot():
    features, event, learns = made(2000)
    found = measure_headroom(features, event, features[:, 0], learns, params(bootstrap=200))
    assert found.gain.ci_low > 0.3
    assert 0.2 < found.difference.ci_low < found.difference.value < found.difference.ci_high
    (_, text) = describe_headroom("benefit", "margin", found, told=1)
    assert text.endswith("So these trees find more in them than `margin` shows.")
    assert describe_headroom("benefit", "margin", found, told=0)[1].endswith("these images do not tell.")


def test_where_the_single_signal_is_all_there_is_trees_find_less():
    features, _, learns = made(2000)
    event = np.random.default_rng(1).random(2000) < 1 / (1 + np.exp(-2 * features[:, 0]))
    found = measure_headroom(features, event, features[:, 0], learns, params(bootstrap=200))
    assert found.difference.ci_low <= 0
    text = describe_headroom("benefit", "margin", found, told=1)[1]
    assert text.endswith("So these trees find less in them than `margin` shows.")


def test_of_an_interval_on_both_sides_of_zero_nothing_is_said():
    found = Headroom(Interval(0.5, 0.4, 0.6), Interval(-0.02, -0.1, 0.1))
    text = describe_headroom("benefit", "margin", found, told=1)[1]
    assert text.endswith(
        "Whether these trees find more in them than `margin` shows, these images do not tell."
    )
