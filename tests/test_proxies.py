import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from pipeline.errors import PipelineError
from pipeline.learned import Learned, layer_features
from pipeline.proxies import PROXIES, get_proxy, step_lengths

# Two images, three states of width two: steps (3, 4) and (0, 0); then (0, 1) and (1, 0).
TRACE = np.array([[[0, 0], [3, 4], [3, 4]], [[1, 1], [1, 2], [2, 2]]], dtype=np.float32)
# Softmax of the first: 1/4, 1/4, 1/2.
LOGITS = np.log(np.array([[1, 1, 2], [1, 1, 1]], dtype=np.float32))


def values(name):
    return PROXIES[name](TRACE, LOGITS)


def test_cls_change_is_the_mean_step():
    np.testing.assert_allclose(values("cls_change"), [(5 + 0) / 2, (1 + 1) / 2])


# Steps of lengths 5, 5, 2 and 1; the second turns by a right angle, the third back by 180 degrees.
PATH = np.array([[[0, 0], [3, 4], [-1, 7], [0.6, 5.8], [0.6, 4.8]]], dtype=np.float32)


def path(name):
    return float(PROXIES[name](PATH, LOGITS[:1])[0])


def test_the_last_step_the_largest_and_the_last_ones_share():
    assert path("cls_last") == pytest.approx(1)
    assert path("cls_max") == pytest.approx(5)
    assert path("cls_last_share") == pytest.approx(1 / 13)


def test_early_to_final_begins_after_a_quarter_of_the_blocks():
    assert path("cls_early_to_final") == pytest.approx(math.dist((3, 4), (0.6, 4.8)))


def test_a_turn_is_one_less_the_cosine():
    assert path("cls_turn") == pytest.approx(((1 - 0) + (1 + 1) + (1 - 0.6)) / 3)


def test_a_token_that_rests_has_no_direction_and_gives_no_nan():
    rest = np.ones((1, 4, 2), dtype=np.float32)
    found = {name: float(PROXIES[name](rest, LOGITS[:1])[0]) for name in PROXIES if name.startswith("cls_")}
    assert found.pop("cls_turn") == 1
    assert set(found.values()) == {0.0}


def test_energy_is_the_logarithm_of_the_sum():
    np.testing.assert_allclose(values("energy"), [math.log(4), math.log(3)], rtol=1e-6)


def test_confidence_is_the_largest_probability():
    np.testing.assert_allclose(values("confidence"), [1 / 2, 1 / 3], rtol=1e-6)


def test_margin_is_the_difference_of_the_two_largest():
    np.testing.assert_allclose(values("margin"), [1 / 4, 0], atol=1e-6)


def test_entropy_in_nats():
    np.testing.assert_allclose(values("entropy"), [1.5 * math.log(2), math.log(3)], rtol=1e-6)


@pytest.mark.parametrize("name", PROXIES)
def test_the_torch_form_is_the_numpy_form(name):
    rng = np.random.default_rng(0)
    trace = rng.normal(size=(50, 13, 192)).astype(np.float32)
    logits = rng.normal(size=(50, 200)).astype(np.float32) * 5
    of_torch = PROXIES[name](torch.from_numpy(trace), torch.from_numpy(logits))
    assert of_torch.shape == (50,)
    np.testing.assert_allclose(of_torch.numpy(), PROXIES[name](trace, logits), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", PROXIES)
def test_huge_logits_do_not_overflow_and_inputs_stay_as_they_are(name):
    logits = np.array([[1000.0, -1000.0, 0.0]], dtype=np.float32)
    before = logits.copy()
    assert np.isfinite(PROXIES[name](TRACE[:1], logits)).all()
    np.testing.assert_array_equal(logits, before)


def test_the_learned_proxy_is_one_formula_for_numpy_and_torch():
    rng = np.random.default_rng(0)
    trace = rng.normal(size=(50, 13, 192)).astype(np.float32)
    logits = rng.normal(size=(50, 200)).astype(np.float32) * 5
    learned = Learned(tuple(rng.normal(size=38)), 0.5)
    of_torch = learned(torch.from_numpy(trace), torch.from_numpy(logits))
    np.testing.assert_allclose(of_torch.numpy(), learned(trace, logits), rtol=2e-4, atol=2e-4)
    assert Learned.from_coefficients(learned.coefficients) == learned


def test_its_features_are_named_in_order():
    features = layer_features(PATH, LOGITS[:1])[0]
    layers = PATH.shape[1] - 1
    np.testing.assert_allclose(features[:layers], np.log(step_lengths(PATH))[0], rtol=1e-5)
    single = ["cls_early_to_final", "confidence", "entropy", "margin", "energy"]
    whole, largest = features[2 * layers - 1 :][:5], features[2 * layers + 4 :]
    assert len(largest) == 10
    absent, largest = np.split(largest, [10 - LOGITS.shape[1]])
    assert not absent.any()
    np.testing.assert_allclose(whole, [path(name) for name in single], rtol=1e-5)
    np.testing.assert_allclose(largest, np.sort(softmax(LOGITS[0])), rtol=1e-5)


def test_of_many_classes_it_sees_the_ten_largest_probabilities():
    logits = np.random.default_rng(3).normal(size=(4, 50))
    trace = np.random.default_rng(4).normal(size=(4, 13, 8))
    features = layer_features(trace, logits)
    assert features.shape == (4, 2 * 12 + 14)
    np.testing.assert_allclose(features[:, -10:], np.sort(softmax(logits, axis=1))[:, -10:])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cls_chnage", r"did you mean 'cls_change'\?"),
        ("lerned", r"did you mean 'learned'\?"),
        ("xyz", "expected one of cls_change, cls_last, .*, energy, learned"),
    ],
)
def test_an_unknown_proxy_names_the_nearest_or_all(name, hint):
    with pytest.raises(PipelineError, match=f"fit.proxy: '{name}' is not known; {hint}"):
        get_proxy(name)
