import math

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.proxies import PROXIES, get_proxy

# Two images, three states of width two: steps (3, 4) and (0, 0); then (0, 1) and (1, 0).
TRACE = np.array([[[0, 0], [3, 4], [3, 4]], [[1, 1], [1, 2], [2, 2]]], dtype=np.float32)
# Softmax of the first: 1/4, 1/4, 1/2.
LOGITS = np.log(np.array([[1, 1, 2], [1, 1, 1]], dtype=np.float32))


def values(name):
    return PROXIES[name](TRACE, LOGITS)


def test_cls_change_is_the_mean_step():
    np.testing.assert_allclose(values("cls_change"), [(5 + 0) / 2, (1 + 1) / 2])


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


def test_an_unknown_proxy_lists_the_known_ones():
    with pytest.raises(PipelineError, match="'cls_chnage' is not known; expected one of cls_change, conf"):
        get_proxy("cls_chnage")
