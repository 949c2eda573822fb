"""Recommendations: chosen on the calibration images, judged on the others."""

import numpy as np
import polars as pl
import pytest

from pipeline.frontier import Prices
from pipeline.policy import escalate
from pipeline.recommend import Limits, recommend

PRICES = Prices({"static_low": 2.0, "static_high": 10.0, "adaptive": 3.0}, 0.1)


def samples(count=2000, seed=0, labelled=True):
    """Low is the more often wrong the larger the score is; high is nearly always right."""
    rng = np.random.default_rng(seed)
    scores = rng.random(count)
    low, high = rng.random(count) > scores / 2, rng.random(count) > 0.02
    table = pl.DataFrame(
        {
            "image_id": [f"{row}" for row in range(count)],
            "split": ["calibration", "evaluation"] * (count // 2),
            "agree": low == high,
            "low_correct": pl.Series(low if labelled else [None] * count, dtype=pl.Boolean),
            "high_correct": pl.Series(high if labelled else [None] * count, dtype=pl.Boolean),
        }
    )
    return table, scores


def ask(table, scores, **limits):
    return recommend(table, {"hard": scores}, PRICES, Limits(**limits), 0.9, 200, 0)


def test_the_cheapest_threshold_within_the_drop_is_found():
    table, scores = samples()
    found = ask(table, scores, drop=0.05)
    looser = ask(table, scores, drop=0.1)
    assert found.calibration_drop <= 0.05
    assert looser.latency_ms < found.latency_ms
    assert found.drop.ci_low < found.drop.value < found.drop.ci_high
    judged = table.filter(split="evaluation")
    kept = ~escalate(scores[1::2], found.threshold)
    reached = np.where(kept, judged["low_correct"], judged["high_correct"]).mean()
    assert found.reached == pytest.approx(reached)
    harmed = kept & ~judged["low_correct"].to_numpy() & judged["high_correct"].to_numpy()
    assert (found.harmful, found.images) == (harmed.sum(), 1000)
    assert found.risk_bound > harmed.mean()


def test_the_evaluation_images_choose_nothing():
    table, scores = samples()
    flipped = table.with_columns(
        low_correct=pl.when(split="evaluation").then(~pl.col("low_correct")).otherwise("low_correct")
    )
    assert ask(flipped, scores, drop=0.05).threshold == ask(table, scores, drop=0.05).threshold


def test_a_limit_on_latency_takes_what_loses_least():
    table, scores = samples()
    found = ask(table, scores, latency_ms=5.0)
    assert found.latency_ms == pytest.approx(5.0, abs=0.2)
    assert found.speedup == pytest.approx(10 / found.latency_ms)


@pytest.mark.parametrize("limits", [{"drop": 0.05}, {"latency_ms": 5.0}])
def test_of_several_proxies_the_best_on_the_calibration_images_is_taken(limits):
    table, scores = samples()
    split = (table["split"] == "calibration").to_numpy()
    noise = np.random.default_rng(1).random(len(scores))
    # The trap tells everything, but on the evaluation images alone.
    several = {
        "noise": noise,
        "hard": scores,
        "trap": np.where(split, noise, table["agree"].not_().to_numpy()),
    }
    found = recommend(table, several, PRICES, Limits(**limits), 0.9, 200, 0)
    assert found == ask(table, scores, **limits)
    assert found.proxy == "hard"


def test_limits_that_nothing_keeps_to_are_told():
    table, scores = samples()
    assert ask(table, scores, latency_ms=1.0) is None
    assert ask(table, scores, drop=0.001, latency_ms=3.0) is None


def test_without_labels_agreement_stands_for_accuracy():
    table, scores = samples(labelled=False)
    found = ask(table, scores, drop=0.05)
    assert found.quality == "agreement"
    judged = table.filter(split="evaluation")
    kept = ~escalate(scores[1::2], found.threshold)
    assert found.reached == pytest.approx(1 - (kept & ~judged["agree"].to_numpy()).mean())
