"""The frontier's prices and marks, on numbers small enough to do by hand."""

import numpy as np
import pytest

from pipeline.frontier import RATES, Outcome, Prices, draw_frontier

RNG = np.random.default_rng(0)
HIGH = RNG.random(200) < 0.9
# Low is wrong on the 40 images whose score is largest, and right elsewhere.
SCORES = RNG.permutation(200).astype(float)
LOW = SCORES < 160


def outcome(mid=0.0, labelled=True, adaptive_ms=3.3):
    middle = RNG.random(200) < mid
    correct = {"static_low": LOW, "static_mid": middle, "static_high": HIGH}
    agree = {"static_low": LOW == HIGH, "static_mid": middle, "static_high": HIGH == HIGH}
    latency_ms = {"static_low": 2.0, "static_mid": 4.0, "static_high": 10.0, "adaptive": adaptive_ms}
    return Outcome(Prices(latency_ms, 0.1), agree, correct if labelled else {})


def test_a_rate_costs_low_and_its_share_of_high_times_the_measured_overhead():
    assert outcome().prices.at(np.array([0.0, 0.1, 1.0])) == pytest.approx([2.2, 3.3, 13.2])


def test_the_curves_end_at_low_and_at_high():
    columns = draw_frontier(outcome(), SCORES, SCORES).columns
    for order in ("proxy", "random", "oracle"):
        assert columns[f"accuracy_{order}"][0] == pytest.approx(LOW.mean())
        assert columns[f"accuracy_{order}"][-1] == pytest.approx(HIGH.mean())
        assert columns[f"agreement_{order}"][-1] == 1
    assert columns["threshold"][0] is columns["threshold"][-1] is None
    rate = RATES[10]
    assert (columns["threshold"][10] < SCORES).mean() == pytest.approx(rate)


def test_the_knee_is_where_the_wrong_answers_end():
    knee = draw_frontier(outcome(), SCORES, SCORES).knee
    assert knee["escalation_rate"] == pytest.approx(0.2)
    assert knee["accuracy"] > HIGH.mean()


def test_an_order_no_better_than_the_line_has_no_knee():
    backwards = draw_frontier(outcome(), -SCORES, SCORES)
    assert backwards.knee is None
    assert sum(backwards.columns["knee"]) == 0


def test_a_static_policy_that_is_cheaper_and_better_takes_thresholds_off_the_frontier():
    alone = draw_frontier(outcome(), SCORES, SCORES).columns
    beside = draw_frontier(outcome(mid=1.1), SCORES, SCORES).columns
    assert alone["pareto"][10] == 1
    assert beside["pareto"][10] == 0
    cheaper = [row for row, cost in enumerate(beside["latency_ms"]) if cost < 4.0]
    assert [beside["pareto"][row] for row in cheaper] == [alone["pareto"][row] for row in cheaper]


def test_without_labels_agreement_decides():
    columns = draw_frontier(outcome(labelled=False), SCORES, SCORES).columns
    assert "accuracy_proxy" not in columns
    # Both ends cost what a static policy does, and the overhead besides.
    assert columns["pareto"][0] == columns["pareto"][-1] == 0
    assert 1 in columns["pareto"]


def test_without_labels_static_mid_dominates_by_its_agreement():
    alone = draw_frontier(outcome(labelled=False), SCORES, SCORES).columns
    beside = draw_frontier(outcome(mid=1.1, labelled=False), SCORES, SCORES).columns
    cheaper = [cost < 4.0 for cost in alone["latency_ms"]]
    assert beside["pareto"] == [
        marked * below for marked, below in zip(alone["pareto"], cheaper, strict=True)
    ]
    assert alone["pareto"] != beside["pareto"]


def test_a_row_costs_what_its_threshold_escalates():
    """Scores 2, 1 and 0, of 33, 67 and 100 images: no threshold parts images of one score."""
    scores = np.repeat([2.0, 1.0, 0.0], [33, 67, 100])
    found = draw_frontier(outcome(), scores, scores).columns
    assert found["escalation_rate"] == [0, 0.165, 0.5, 1]
    assert found["threshold"] == [None, 1.0, 0.5, None]
    assert found["latency_ms"] == pytest.approx(outcome().prices.at(np.array([0, 0.165, 0.5, 1])))
    agree = LOW == HIGH
    staying = [agree[count:].sum() for count in (0, 33, 100, 200)]
    reached = (np.array([0, 33, 100, 200]) + staying) / 200
    assert found["agreement_proxy"] == pytest.approx(reached)


def test_a_rate_that_a_tie_misses_by_one_image_is_not_in_reach():
    """Four images of 200 are asked for; the two that share the next score would make it five."""
    scores = np.repeat([2.0, 1.0, 0.0], [3, 2, 195])
    assert draw_frontier(outcome(), scores, scores).columns["escalation_rate"] == [0, 0.015, 0.025, 1]


def test_a_constant_score_reaches_only_the_ends():
    found = draw_frontier(outcome(), np.ones(200), SCORES)
    assert found.columns["escalation_rate"] == [0, 1]
    assert found.knee is None
