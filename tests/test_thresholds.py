import numpy as np
import pytest

from pipeline.calibration import Calibration, expected_oracle
from pipeline.errors import PipelineError
from pipeline.params.fit import ThresholdParams
from pipeline.policy import escalate
from pipeline.thresholds import Costs, at_rate, choose_threshold

IDENTITY = Calibration("linear", (0.0, 1.0), (0.0, 1.0))
TEN = np.arange(10.0)


def choose(rule, value, scores=TEN, direction=1, costs=None):
    params = ThresholdParams(rule=rule, value=value, confidence=0.9)
    return choose_threshold(params, scores, direction, IDENTITY, costs)


@pytest.mark.parametrize(("rate", "escalated"), [(0.1, 1), (0.3, 3), (0.95, 10), (0.94, 9), (0.04, 0)])
def test_a_rate_escalates_the_nearest_whole_number(rate, escalated):
    assert escalate(TEN, choose("escalation_rate", rate).value).sum() == escalated


def test_the_threshold_lies_half_way_so_that_rounding_flips_nothing():
    assert choose("escalation_rate", 0.3).value == 6.5


def test_scores_with_no_number_between_them_are_still_parted():
    """Half-way from the second to the third would round to the third."""
    second = np.nextafter(1.0, 2)
    scores = np.array([1.0, second, np.nextafter(second, 2)])
    assert escalate(scores, at_rate(scores, 1 / 3)).tolist() == [False, False, True]
    assert escalate(scores, at_rate(scores, 2 / 3)).tolist() == [False, True, True]


def test_order_of_the_scores_does_not_matter():
    shuffled = np.random.default_rng(0).permutation(TEN)
    assert choose("escalation_rate", 0.3, shuffled) == choose("escalation_rate", 0.3)


def test_ties_at_the_cut_stay_low_and_are_reported():
    scores = np.array([0.0, 1.0, 1.0, 1.0, 2.0])
    threshold = choose("escalation_rate", 0.4, scores)
    assert escalate(scores, threshold.value).tolist() == [False, False, False, False, True]
    assert "ties in the proxy: the threshold escalates 0.2000" in threshold.warnings[0]


def test_none_and_all_are_valid_and_warned_of():
    nothing, everything = choose("escalation_rate", 0.0), choose("escalation_rate", 1.0)
    assert escalate(np.array([-1e9, 1e9]), nothing.value).tolist() == [False, False]
    assert escalate(np.array([-1e9, 1e9]), everything.value).tolist() == [True, True]
    assert "no calibration image is escalated" in nothing.warnings[0]
    assert "every calibration image is escalated" in everything.warnings[0]


def test_a_constant_proxy_escalates_none_and_warns_of_both():
    threshold = choose("escalation_rate", 0.3, np.ones(10))
    assert escalate(np.ones(10), threshold.value).sum() == 0
    assert len(threshold.warnings) == 2


@pytest.mark.parametrize(("limit", "escalated"), [(4.0, 5), (4.5, 5), (8.9, 1), (9.0, 0), (0.0, 9)])
def test_max_delta_keeps_what_expects_at_most_the_limit(limit, escalated):
    assert escalate(TEN, choose("max_delta", limit).value).sum() == escalated


@pytest.mark.parametrize("limit", [4.0, 4.2, 4.9, 12.5])
@pytest.mark.parametrize("kind", ["linear", "isotonic"])
def test_no_image_whose_expected_delta_is_beyond_the_limit_stays_low(kind, limit):
    """Between the calibration images, and beyond them, too."""
    knots = (0.0, 4.0, 4.1, 9.0)
    learned = {"linear": IDENTITY, "isotonic": Calibration("isotonic", (0.0, 4.0, 5.0, 9.0), knots)}[kind]
    params = ThresholdParams(rule="max_delta", value=limit, confidence=0.9)
    threshold = choose_threshold(params, TEN, 1, learned, None).value
    new = np.linspace(-1, 20, 4201)
    low = ~escalate(new, threshold)
    assert expected_oracle(learned, new[low]).max() <= limit + 1e-9
    assert not escalate(TEN, threshold)[expected_oracle(learned, TEN) <= limit].any()


def test_max_delta_below_every_expectation_escalates_all():
    threshold = choose("max_delta", 0.5, TEN + 1)
    assert escalate(TEN, threshold.value).all()
    assert "every calibration image" in threshold.warnings[0]


def test_fixed_is_in_proxy_units_whatever_the_direction():
    assert choose("fixed", 2.5).value == 2.5
    down = choose("fixed", 2.5, -TEN, direction=-1).value
    assert escalate(-TEN, down).tolist() == [True] * 3 + [False] * 7


@pytest.mark.parametrize(("budget_ms", "escalated"), [(2.0, 0), (4.0, 2), (12.0, 10), (99.0, 10)])
def test_a_budget_escalates_what_it_pays_for(budget_ms, escalated):
    found = choose("latency_budget", budget_ms, costs=Costs(2.0, 10.0))
    assert escalate(TEN, found.value).sum() == escalated


def test_a_budget_below_the_low_pass_or_without_costs_is_an_error():
    with pytest.raises(PipelineError, match=r"takes 2.000 ms; set it between that and 12.000 ms"):
        choose("latency_budget", 1.9, costs=Costs(2.0, 10.0))
    with pytest.raises(PipelineError, match="run adaptive-vit profile"):
        choose("latency_budget", 5.0)


@pytest.mark.parametrize(("rule", "value"), [("accuracy_drop", 1.0), ("latency_budget", 0.0)])
def test_values_that_do_not_fit_the_new_rules_are_refused(rule, value):
    with pytest.raises(ValueError, match=rule):
        ThresholdParams(rule=rule, value=value, confidence=0.9)
