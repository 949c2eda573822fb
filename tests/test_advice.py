"""What is printed of a recommendation: costs above the limit, and static mid, are not passed over."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from pipeline.advice import Mid, describe_recommendation, find_mid
from pipeline.deferral import Interval
from pipeline.recommend import Limits
from tests.test_fit import params
from tests.test_recommend import ask, samples

FOUND = ask(*samples(), latency_ms=5.0)


LIMITS = Limits(latency_ms=5.0)


def describe(found=FOUND, mid=None, stable=True):
    return "\n".join(describe_recommendation(found, 1, "single_stream", 0.9, LIMITS, mid, stable))


def test_evaluation_images_that_cost_more_than_the_limit_are_told():
    dearer = replace(FOUND, calibration_latency_ms=4.98, latency_ms=5.04)
    assert "cost: 5.04 ms per image" in describe(dearer)
    assert "ABOVE the limit: the calibration images cost 4.98 ms" in describe(dearer)
    assert "ABOVE" not in describe(replace(FOUND, latency_ms=4.9))


def test_the_cost_of_a_replay_that_was_not_stable_is_told_as_such():
    assert describe().count("(by the last replay)") == 1
    assert "(by the last replay, which was NOT stable: repeat it)" in describe(stable=False)


@pytest.mark.parametrize(
    ("latency_ms", "lead", "says"),
    [
        (4.0, Interval(0.02, 0.01, 0.03), "AHEAD of it: no dearer, better"),
        (4.0, Interval(0.02, -0.01, 0.05), "; no dearer, level within the interval"),
        (4.0, Interval(-0.02, -0.03, -0.01), "; no dearer, worse"),
        (9.0, Interval(0.02, 0.01, 0.03), "; dearer, better"),
    ],
)
def test_static_mid_is_ahead_only_where_it_is_no_dearer_and_better_outside_the_interval(
    latency_ms, lead, says
):
    text = describe(mid=Mid(400, latency_ms, 0.81, lead))
    interval = f"{100 * lead.value:+.2f} [{100 * lead.ci_low:+.2f}, {100 * lead.ci_high:+.2f}]"
    shown = f"static mid: 81.00% of 400 replayed images, {latency_ms:.2f} ms, {interval} points of accuracy"
    assert shown in text
    assert says in text


def test_the_ends_are_set_by_a_rate_and_other_thresholds_in_units_of_the_proxy():
    never = replace(FOUND, threshold=float(np.finfo(np.float64).max))
    always = replace(FOUND, threshold=-float(np.finfo(np.float64).max))
    assert "rule=escalation_rate -S fit.threshold.value=0.0" in describe(never)
    assert "rule=escalation_rate -S fit.threshold.value=1.0" in describe(always)
    turned = describe_recommendation(
        replace(FOUND, threshold=0.5), -1, "offline", 0.9, Limits(0.05), None, True
    )
    assert "-S fit.threshold.rule=fixed -S fit.threshold.value=-0.5" in "\n".join(turned)


def test_static_mid_is_judged_on_the_images_that_it_answered():
    table = pl.DataFrame(
        {
            "split": ["calibration", *["evaluation"] * 3],
            "agree": [True] * 4,
            "low_correct": [True, True, False, True],
            "high_correct": [True, True, True, True],
            "mid_right": [None, True, False, None],
        }
    )
    measured = {"static_mid": {"latency_ms": {"mean": 3.0}}}
    found = find_mid(table, np.array([0.0, 0, 1, 0]), 0.5, measured, params())
    assert found == Mid(2, 3.0, 0.5, found.lead)
    assert found.lead.value == -0.5
