"""Formulas of proxies, told in C++."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest

from pipeline.compiler import find_compiler
from pipeline.engines.native.formula import UntoldError, write_formula
from pipeline.engines.native.library import load_score
from pipeline.engines.native.units import UNITS
from pipeline.learned import Learned
from pipeline.proxies import PROXIES, library_of, step_lengths

RNG = np.random.default_rng(0)
LEARNED = Learned(tuple(RNG.normal(size=2 * 12 + 14)), 0.5)
ALL = {**PROXIES, "learned": LEARNED}


def compiled(proxy, states, width, classes, monkeypatch):
    """For any processor, as a function of arrays (N, L+1, D) and (N, C)."""
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    monkeypatch.setitem(UNITS, "any", replace(UNITS["avx2"], name="any", flags=()))
    address = load_score("any", write_formula(proxy, states, width, classes))
    score = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p)(address)
    return lambda trace, logits: [
        score(one.ctypes.data, other.ctypes.data) for one, other in zip(trace, logits, strict=True)
    ]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("width", "classes"), [(192, 200), (8, 12)])
def test_every_proxy_is_the_same_formula_in_c(name, width, classes, monkeypatch):
    trace = RNG.normal(size=(20, 13, width)).astype(np.float32)
    logits = (5 * RNG.normal(size=(20, classes))).astype(np.float32)
    found = compiled(ALL[name], 13, width, classes, monkeypatch)(trace, logits)
    np.testing.assert_allclose(found, ALL[name](trace, logits), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_token_that_rests_and_huge_logits_are_as_in_numpy(name, monkeypatch):
    trace = np.ones((2, 13, 8), dtype=np.float32)
    logits = np.array([[1000.0, -1000.0] + 10 * [0.0], 12 * [1.0]], dtype=np.float32)
    found = compiled(ALL[name], 13, 8, 12, monkeypatch)(trace, logits)
    np.testing.assert_allclose(found, ALL[name](trace, logits), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_what_is_no_number_stays_so(name, monkeypatch):
    """And so escalates; above all, sorting it must end."""
    trace, logits = np.ones((1, 13, 8), dtype=np.float32), np.ones((1, 12), dtype=np.float32)
    trace[0, 12, 3] = logits[0, 5] = np.nan
    assert np.isnan(compiled(ALL[name], 13, 8, 12, monkeypatch)(trace, logits)).all()


def largest(_trace, logits):
    return logits.max(-1)[0]


def in_place(trace, _logits):
    step = trace[:, 1] - trace[:, 0]
    step += 1
    return step.sum(-1)


def by_keyword(_trace, logits):
    return logits.sum(axis=-1)


def of_two_pairs(trace, _logits):
    xp = library_of(trace)
    lengths = step_lengths(trace)
    first = xp.concatenate((lengths[:, :1], lengths[:, 1:2]), -1)
    second = xp.concatenate((lengths[:, 2:3], lengths[:, 3:4]), -1)
    return (first - second).sum(-1)


def test_parts_that_look_alike_are_told_apart(monkeypatch):
    trace, logits = RNG.normal(size=(5, 5, 8)).astype(np.float32), np.zeros((5, 4), dtype=np.float32)
    found = compiled(of_two_pairs, 5, 8, 4, monkeypatch)(trace, logits)
    np.testing.assert_allclose(found, of_two_pairs(trace, logits), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("proxy", [largest, in_place, by_keyword])
def test_what_has_no_loop_is_untold(proxy):
    with pytest.raises(UntoldError):
        write_formula(proxy, 13, 192, 200)
