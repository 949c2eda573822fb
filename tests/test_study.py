"""The tables of the findings: what they say of made-up data whose answer is known."""

import numpy as np
import polars as pl
import pytest

from pipeline.fit import fit
from pipeline.promises import describe_certificates, describe_limits, describe_promised_drops
from pipeline.proxies import PROXIES
from pipeline.signals import best_single, describe_signals
from pipeline.study import certified_params, compare_signals, study_oracle
from tests.test_fit import FINGERPRINT, params
from tests.test_recommend import PRICES, samples

TABLE, HARD = samples()
BENEFIT = params(oracle="benefit")
NOISE = np.random.default_rng(9).random(len(HARD))


def gained(value, difference=0.0, told=1):
    ends = {"ci_low": value - 0.02, "ci_high": value + 0.02}
    apart = {"value": difference, "ci_low": difference - 0.02, "ci_high": difference + 0.02}
    rates = {"at_10": 0.8, "at_20": 0.85, "at_30": 0.9}
    return {
        "gain_over_random": {"value": value, **ends},
        "difference": apart,
        "auroc": 0.7,
        "agreement": rates,
        "told": told,
    }


@pytest.mark.parametrize(
    ("lead", "says"),
    [
        (0.05, "], outside the interval"),
        (0.01, "], NOT outside the interval"),
        (-0.01, "], behind, and not outside the interval"),
        (-0.05, "], behind, outside the interval"),
    ],
)
def test_a_lead_counts_only_outside_its_interval(lead, says):
    by_proxy = {"margin": gained(0.4), "cls_change": gained(0.1, -0.3), "learned": gained(0.4 + lead, lead)}
    assert best_single(by_proxy) == "margin"
    text = "\n".join(describe_signals({"delta": by_proxy}, {"delta": by_proxy}))
    assert f"`learned` less margin: {lead:+.3f}" in text
    assert says in text
    assert "`cls_change` less margin: -0.300 [-0.320, -0.280]" in text


def test_of_too_few_events_nothing_leads():
    by_proxy = {name: gained(0.4, told=0) for name in ("margin", "cls_change", "learned")}
    text = "\n".join(describe_signals({"benefit": by_proxy}, {"benefit": by_proxy}))
    assert text.endswith("Best single: margin; of too few images or events to tell the signals apart.")


def test_a_better_signal_loses_less_and_costs_less():
    scores = {"hard": HARD, "noise": NOISE}
    rows = [
        line.split("|") for line in describe_limits(TABLE, scores, PRICES, params()) if line.startswith("| ")
    ]
    one_point = {row[1].strip(): float(row[6].strip().rstrip("×")) for row in rows if row[2].strip() == "1.0"}
    assert one_point["hard"] > one_point["noise"]


def test_an_oracle_that_is_the_same_for_all_images_is_left_out():
    """Low and high answer alike, so that only delta tells images apart."""
    values = np.random.default_rng(3).random((len(TABLE), len(PROXIES) + 1))
    columns = {name: pl.Series(values[:, index]) for index, name in enumerate(PROXIES)}
    alike = {"agree": pl.lit(True), "high_correct": pl.col("low_correct"), "delta": pl.Series(values[:, -1])}
    table = TABLE.with_columns(**columns, **alike, features=pl.Series(values[:, :3]))
    text = "\n".join(compare_signals(table, "benefit", params()))
    assert "**delta**" in text
    assert "**benefit**" not in text
    assert "Nothing tells signals apart on benefit" in text


def test_a_stricter_promise_escalates_more():
    assert study_oracle(TABLE) == "benefit"
    benefit = TABLE["high_correct"] & ~TABLE["low_correct"]
    table = TABLE.with_columns(proxy=HARD, oracle=benefit.cast(float), delta=HARD)
    fits = {
        ("hard", alpha): fit(table, certified_params(BENEFIT, "hard", "risk", alpha), FINGERPRINT)
        for alpha in (0.0001, 0.02, 0.1)
    }
    none, strict, loose = describe_certificates(fits, PRICES)[3:]
    assert "not certified" in none
    assert "| 100.0 % |" in none
    rates = [float(line.split("|")[4].strip(" %")) for line in (strict, loose)]
    assert rates[0] > rates[1]


def test_a_promised_drop_is_told_with_both_sides_of_the_balance():
    benefit = TABLE["high_correct"] & ~TABLE["low_correct"]
    table = TABLE.with_columns(proxy=HARD, oracle=benefit.cast(float), delta=HARD)
    fits = {
        ("hard", drop): fit(table, certified_params(BENEFIT, "hard", "accuracy_drop", drop), FINGERPRINT)
        for drop in (0.0, 0.05)
    }
    none, kept = describe_promised_drops(fits, PRICES)[3:]
    assert "| 0.0 | not certified | 100.0 % |" in none
    found = fits["hard", 0.05].metrics["certificate"]
    assert found["helped"] > 0
    assert f"| 5.0 | {found['harmful']}, {found['helped']} / 800 |" in kept
