"""Recommendations: chosen on the calibration images, judged on the others."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner
from scipy.stats import binom

from pipeline.certify import certify, list_candidates
from pipeline.delta import compute_deltas, to_arrow
from pipeline.files import write_json
from pipeline.fit import fit, read_samples
from pipeline.frontier import Prices
from pipeline.policy import escalate, write_policy
from pipeline.recommend import Limits, confidence_each, recommend
from pipeline.tables import IMAGES, read_fingerprint, write_table
from stages import study
from stages.recommend import main
from tests.report_inputs import scenario_metrics
from tests.sets import FINGERPRINT, write_set
from tests.test_certify import DELTA, MARGIN, SIMULATIONS
from tests.test_fit import params

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
    return recommend(table, {"hard": scores}, PRICES, Limits(**limits), params())


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
    assert binom.cdf(found.harmful, found.images, found.risk_bound) == pytest.approx(0.1)


def test_a_threshold_that_loses_just_the_limit_keeps_to_it():
    """7 of 1,000 calibration images, for a limit of 0.7 points, which is a bit less in binary."""
    table, scores = samples()
    scores = np.sort(scores)
    low = np.ones(2000, dtype=bool)
    low[1200:1214] = low[-200:] = False  # Half of them calibrate.
    table = table.with_columns(pl.Series("low_correct", low), high_correct=pl.lit(True), agree=pl.Series(low))
    found = ask(table, scores, drop=0.7 / 100)
    assert found.calibration_drop == pytest.approx(0.007)
    assert found.escalation_rate == pytest.approx(0.1, abs=0.02)


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
    found = recommend(table, several, PRICES, Limits(**limits), params())
    assert found == replace(ask(table, scores, **limits), tried=3)
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


def test_of_several_proxies_each_is_certified_at_more():
    assert confidence_each(0.9, 1) == 0.9
    assert confidence_each(0.9, 5) == pytest.approx(0.98)


def draw_useless(rng, images, proxies):
    """Scores (proxies, N) that tell nothing of harm (N,), which befalls a tenth: risk 0.1 u at u."""
    return rng.random((proxies, images)), rng.random(images) < 0.1


def choose_and_certify(scores, harmed, alpha, confidence):
    """Of the proxy that leaves most low within alpha on all images, the risk that four fifths certify."""
    kept = [np.flatnonzero(np.cumsum(harmed[np.argsort(row)]) <= alpha * len(harmed))[-1] for row in scores]
    row, learned = scores[int(np.argmax(kept))], len(harmed) // 5
    candidates = list_candidates(row[:learned])
    found = certify(row[learned:], harmed[learned:], candidates, alpha, confidence)
    return 0.1 * min(max(found.threshold, 0), 1)


def test_a_limit_holds_for_a_proxy_that_was_chosen_by_the_images_that_certify():
    rng, alpha, proxies = np.random.default_rng(0), 0.05, 10
    broken = dict.fromkeys((1 - DELTA, confidence_each(1 - DELTA, proxies)), 0)
    for _ in range(SIMULATIONS):
        scores, harmed = draw_useless(rng, 1000, proxies)
        for confidence in broken:
            broken[confidence] += choose_and_certify(scores, harmed, alpha, confidence) > alpha
    plain, corrected = (count / SIMULATIONS for count in broken.values())
    assert plain > DELTA + MARGIN
    assert corrected <= DELTA + MARGIN


@pytest.fixture
def measured(project):
    """400 images, half of them for calibration, embedded and replayed; paths as dvc.yaml has them."""
    rng, count = np.random.default_rng(0), 400
    ids, wnids = [f"{row:03}" for row in range(count)], [f"n{row % 4}" for row in range(count)]
    columns = {
        "image_id": ids,
        "split": ["calibration", "evaluation"] * (count // 2),
        "wnid": wnids,
        "label": [row % 4 for row in range(count)],
        "jpeg": [b""] * count,
    }
    images = Path("data/images.parquet")
    images.parent.mkdir()
    write_table(images, pa.table(columns, schema=IMAGES), {"classes": [[f"n{k}", f"n{k}"] for k in range(4)]})
    trace, truth = rng.normal(size=(count, 3, 2)), 3 * np.eye(4)[np.arange(count) % 4]
    low, high = (
        write_set(
            Path("data/embeddings") / role,
            role,
            ids,
            rng.normal(size=(count, 2)),
            truth + rng.normal(scale=noise, size=(count, 4)),
            trace,
            classes=["n0", "n1", "n2", "n3"],
        )
        for role, noise in (("low", 3), ("high", 1))
    )
    table, fingerprint = compute_deltas(images, low, high)
    write_table(Path("data/deltas.parquet"), to_arrow(table), fingerprint)
    Path("metrics").mkdir()
    Path("metrics/replay.json").write_text(json.dumps({"single_stream": scenario_metrics()}))
    replay_on(FINGERPRINT["images_sha256"])
    return project


def replay_on(images_sha256):
    """What replay says of its conditions, as far as recommend and study read it."""
    made = {key: FINGERPRINT[key] for key in ("weights_sha256", "precision")}
    document = made | {"images_sha256": images_sha256, "sizes_px": {"low": 32, "high": 64}}
    write_json(Path("metrics/environment.json"), document)


def make_policy(**changes):
    """What fit makes of the images of `measured`, judged on the others."""
    low, deltas, asked = Path("data/embeddings/low"), Path("data/deltas.parquet"), params(**changes)
    fitted = fit(read_samples(low, deltas, asked), asked, read_fingerprint(deltas))
    write_policy(Path("models") / "policy.json", fitted.policy)
    return fitted


def test_the_command_that_is_printed_makes_the_policy_that_was_recommended(measured):
    """Though the policy on disk is a certified one, whose `learned` is another model."""
    certified = make_policy(rule="risk", value=0.2, proxy="learned")
    output = CliRunner().invoke(main, ["--max-latency-ms", "6"]).output
    proxy, rate = re.match(r"(\w+), single_stream: escalate ([\d.]+)%", output).groups()
    value = re.search(r"rule=fixed -S fit.threshold.value=(\S+)", output)[1]
    made = make_policy(rule="fixed", value=float(value), proxy=proxy)
    assert proxy == "learned"
    assert made.policy.coefficients != certified.policy.coefficients
    assert 100 * made.metrics["evaluation"]["escalation_rate"] == pytest.approx(float(rate), abs=0.05)


def test_programs_are_told_what_people_are(measured):
    make_policy()
    text = CliRunner().invoke(main, ["--max-latency-ms", "6"]).output
    document = json.loads(CliRunner().invoke(main, ["--max-latency-ms", "6", "--json"]).output)
    options = " ".join(f"-S {key}={value}" for key, value in document["settings"].items())
    assert f"set it: dvc exp run {options}\n" in text
    assert f"{document['proxy']}, {document['scenario']}: escalate {document['escalation_rate']:.1%} " in text
    assert f"cost: {document['latency_ms']:.2f} ms per image, {document['speedup']:.2f}×" in text
    assert document["drop"].keys() == {"value", "ci_low", "ci_high"}
    assert ("static mid" in text) == ("static_mid" in document)


def test_only_a_proxy_chosen_among_several_is_certified_at_more(measured):
    named = CliRunner().invoke(main, ["--max-accuracy-drop", "5", "--proxy", "margin"]).output
    assert "rule=accuracy_drop -S fit.threshold.value=0.05\n" in named
    chosen = CliRunner().invoke(main, ["--max-accuracy-drop", "5", "--proxy", "any"]).output
    assert f"-S fit.threshold.value=0.05 -S fit.threshold.confidence={1 - (1 - 0.9) / 11!r}\n" in chosen
    assert "chose it among 11 signals: certified at 99.09%, the limit holds with confidence 0.9)" in chosen


def test_costs_of_a_replay_of_other_images_are_refused(measured):
    make_policy()
    replay_on("others")
    for command, words in ((main, ["--max-latency-ms", "6"]), (study.main, [])):
        found = CliRunner().invoke(command, words)
        assert found.exit_code == 1
        says = (
            "metrics/environment.json says that the costs were measured with others; run adaptive-vit replay"
        )
        assert f"data/deltas.parquet: made with images_sha256 i, but {says}" in found.output
