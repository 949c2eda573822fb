from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.answers import NEEDS
from pipeline.cascade import Bench, Cascade
from pipeline.engines.build import build_engine
from pipeline.policy import ALWAYS_ESCALATE, NEVER_ESCALATE, decide
from pipeline.proxies import cls_change
from tests.made import canvases, engine, policy, runtime, spec, weights

IMAGES = canvases(11)
PROXY = cls_change(engine(32).run(IMAGES).trace, None).numpy().astype(float)
MIDDLE = float(np.sort(PROXY)[5:7].mean())


def cascade(threshold, batch_size, direction=1, high_batch=None):
    engines = {"low": engine(32, batch_size), "high": engine(64, high_batch or batch_size)}
    return Cascade(engines, policy(threshold, direction))


def test_static_policies_answer_with_one_engine():
    low = cascade(0, 4).answer("static_low", IMAGES)
    high = cascade(0, 4).answer("static_high", IMAGES)
    assert low.top1.tolist() == engine(32).run(IMAGES).logits.argmax(1).tolist()
    assert high.top1.tolist() == engine(64).run(IMAGES).logits.argmax(1).tolist()
    assert not low.escalated.any()
    assert high.escalated.all()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 11, 64])
def test_batches_answer_as_one_image_at_a_time_in_the_order_of_the_input(batch_size):
    batched = cascade(MIDDLE, batch_size).answer("adaptive", IMAGES)
    single = [cascade(MIDDLE, 1).answer("adaptive", image[None]) for image in IMAGES]
    assert batched.escalated.tolist() == [bool(answer.escalated[0]) for answer in single]
    assert batched.top1.tolist() == [int(answer.top1[0]) for answer in single]


def test_adaptive_takes_high_where_it_escalates_and_low_elsewhere():
    answers = cascade(MIDDLE, 4).answer("adaptive", IMAGES)
    low = cascade(MIDDLE, 4).answer("static_low", IMAGES).top1
    high = cascade(MIDDLE, 4).answer("static_high", IMAGES).top1
    assert answers.escalated.sum() == 5
    assert answers.top1.tolist() == np.where(answers.escalated, high, low).tolist()


def test_decisions_are_those_of_fit():
    """fit decides on the NumPy proxy of the stored trace, the cascade on the torch proxy of its own pass."""
    for direction, threshold in ((1, MIDDLE), (-1, -MIDDLE)):
        made = policy(threshold, direction)
        answers = cascade(threshold, 4, direction).answer("adaptive", IMAGES)
        trace = engine(32).run(IMAGES).trace.numpy()
        assert answers.escalated.tolist() == decide(made, cls_change(trace, None)).tolist()


class Clock:
    """Time passes only where someone sleeps."""

    now_s = 0.0

    def perf_counter(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


class Counting:
    """An engine that notes the sizes of its batches, and takes a while for each if so told."""

    def __init__(self, inner, takes_s=0.0, clock=None):
        self.inner, self.batch_size, self.takes_s, self.sizes = inner, inner.batch_size, takes_s, []
        self.runtime, self.clock = inner.runtime, clock or Clock()

    def upload(self, images):
        return self.inner.upload(images)

    def begin(self, images):
        self.sizes.append(len(images))
        self.clock.sleep(self.takes_s)
        return self.inner.begin(images)


@pytest.mark.parametrize(
    ("threshold", "high_sizes"), [(NEVER_ESCALATE, []), (MIDDLE, [4, 1]), (ALWAYS_ESCALATE, [4, 4, 3])]
)
def test_the_high_pass_runs_in_full_batches_and_only_where_needed(threshold, high_sizes):
    low, high = Counting(engine(32, 4)), Counting(engine(64, 4))
    Cascade({"low": low, "high": high}, policy(threshold)).answer("adaptive", IMAGES)
    assert low.sizes == [4, 4, 3]
    assert high.sizes == high_sizes


def test_each_role_has_a_batch_of_its_own():
    low, high = Counting(engine(32, 6)), Counting(engine(64, 4))
    answers = Cascade({"low": low, "high": high}, policy(ALWAYS_ESCALATE)).answer("adaptive", IMAGES)
    assert (low.sizes, high.sizes) == ([6, 5], [4, 4, 3])
    assert answers.top1.tolist() == cascade(0, 4).answer("static_high", IMAGES).top1.tolist()


@pytest.mark.parametrize(
    ("deadline_ms", "high_sizes"), [(None, [8, 3]), (10_000.0, [8, 3]), (0.0, [4, 4, 3])]
)
def test_no_escalated_image_waits_beyond_the_deadline(monkeypatch, deadline_ms, high_sizes):
    clock = Clock()
    monkeypatch.setattr("pipeline.cascade.time", clock)
    low, high = Counting(engine(32, 4), 0.001, clock), Counting(engine(64, 8))
    both = Cascade({"low": low, "high": high}, policy(ALWAYS_ESCALATE), deadline_ms)
    answers = both.answer("adaptive", IMAGES)
    assert high.sizes == high_sizes
    assert answers.top1.tolist() == cascade(0, 4).answer("static_high", IMAGES).top1.tolist()


def test_what_a_full_batch_leaves_over_has_waited_while_it_ran(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("pipeline.cascade.time", clock)
    low, high = Counting(engine(32, 4)), Counting(engine(64, 6), 0.2, clock)
    Cascade({"low": low, "high": high}, policy(ALWAYS_ESCALATE), deadline_ms=150.0).answer("adaptive", IMAGES)
    assert high.sizes == [6, 2, 3]


@pytest.mark.parametrize(("low_batch", "takes_s", "high_batch"), [(1, 0.04, 8), (3, 0.06, 4)])
def test_the_wait_is_that_of_the_oldest_image_that_still_waits(monkeypatch, low_batch, takes_s, high_batch):
    """The fourth of single images finds that the first has waited 120 ms; of threes, four go at once."""
    clock = Clock()
    monkeypatch.setattr("pipeline.cascade.time", clock)
    low, high = Counting(engine(32, low_batch), takes_s, clock), Counting(engine(64, high_batch))
    Cascade({"low": low, "high": high}, policy(ALWAYS_ESCALATE), deadline_ms=100.0).answer("adaptive", IMAGES)
    assert high.sizes == [4, 4, 3]


def test_one_call_leaves_nothing_behind_for_the_next():
    both = cascade(MIDDLE, 4)
    first = both.answer("adaptive", IMAGES)
    assert both.answer("adaptive", IMAGES.flip(0)).top1.tolist() == first.top1[::-1].tolist()


def test_a_call_that_fails_leaves_nothing_behind_for_the_next(monkeypatch):
    both = cascade(ALWAYS_ESCALATE, 4)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(both.waiting, "run_full", failing)
        both.answer("adaptive", IMAGES)
    both.policy = policy(NEVER_ESCALATE)
    expected = both.answer("static_low", IMAGES).top1.tolist()
    assert both.answer("adaptive", IMAGES).top1.tolist() == expected


def failing():
    raise MemoryError


def test_the_low_engine_has_a_precision_of_its_own_where_asked():
    mixed = replace(runtime(), low_backend="eager", low_precision="bfloat16")
    bench = Bench(weights(), {"low": 32, "mid": 48, "high": 64}, mixed, policy(ALWAYS_ESCALATE), 4)
    built = bench.build({"low": 4, "mid": 4, "high": 4})
    precisions = {role: made.runtime.precision for role, made in built.engines.items()}
    assert precisions == {"low": "bfloat16", "mid": "float32", "high": "float32"}
    expected = engine(64).run(IMAGES).logits.argmax(1).tolist()
    assert built.answer("adaptive", IMAGES).top1.tolist() == expected
    low = build_engine(replace(spec(32), runtime=mixed.of("low")), 4)
    found = np.concatenate([low.predict(part).top1 for part in IMAGES.split(4)])
    assert built.answer("static_low", IMAGES).top1.tolist() == found.tolist()


def test_a_bench_builds_only_what_is_asked_for():
    bench = Bench(weights(), {"low": 32, "mid": 48, "high": 64}, runtime(), policy(0.0), 4)
    assert bench.build({"low": 2}).policies == ("static_low",)
    full = bench.build({"low": 1, "mid": 1, "high": 4})
    assert full.policies == tuple(NEEDS)
    assert (full.engines["mid"].size_px, full.engines["high"].batch_size) == (48, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", ["eager", "cudagraph"])
@pytest.mark.parametrize("threshold", [NEVER_ESCALATE, MIDDLE, ALWAYS_ESCALATE])
def test_a_gpu_that_is_given_batches_ahead_answers_as_one_image_at_a_time(backend, threshold):
    on_gpu = replace(runtime(), device=torch.device("cuda"), backend=backend)
    images = canvases(200)
    bench = Bench(weights(), {"low": 32, "high": 64}, on_gpu, policy(threshold), 16)
    batched, single = bench.build({"low": 16, "high": 8}), bench.build({"low": 1, "high": 1})
    for name in ("static_low", "static_high", "adaptive"):
        found = batched.answer(name, images)
        expected = [single.answer(name, image[None]) for image in images]
        assert found.escalated.tolist() == [bool(answer.escalated[0]) for answer in expected]
        assert found.top1.tolist() == [int(answer.top1[0]) for answer in expected]
