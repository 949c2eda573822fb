import csv
import json

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from pipeline.deferral import accuracy_curve
from pipeline.proxies import PROXIES
from pipeline.proxy_bench import compare_proxies, list_rows, measure_overlap, selective_risk
from stages.proxies import main
from tests.imports import ROOT
from tests.test_fit import params, real_tables


def table(count=400, labelled=True):
    """Half to calibrate; where `hard` is large, low is wrong and high is right."""
    hard = np.random.default_rng(0).random(count)
    wrong = hard > 0.7
    return pl.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(count)],
            "split": ["calibration", "evaluation"] * (count // 2),
            "delta": hard,
            "agree": ~wrong,
            "low_correct": pl.Series((~wrong).tolist() if labelled else [None] * count, dtype=pl.Boolean),
            "high_correct": pl.Series([True] * count if labelled else [None] * count, dtype=pl.Boolean),
        }
    )


def compare(deltas, **proxies):
    settings = params(bootstrap=100).model_copy(update={"proxy": next(iter(proxies))})
    values = {name: np.asarray(column) for name, column in proxies.items()}
    return compare_proxies(deltas, values, np.stack(list(values.values()), axis=1), settings)


def test_a_proxy_that_is_the_oracle_backwards_is_turned_and_perfect_while_noise_is_not():
    deltas = table()
    found = compare(deltas, noise=np.random.default_rng(1).random(400), truth=-deltas["delta"].to_numpy())
    assert set(found) == {"delta", "disagreement", "benefit"}
    for item in found.values():
        truth, noise = item["truth"], item["noise"]
        assert item["learned"]["gain_over_random"]["value"] > 0.98
        assert truth["gain_over_random"]["value"] == pytest.approx(1)
        assert truth["auroc"] == truth["auprc"] == 1
        assert noise["gain_over_random"]["ci_low"] < 0.2
        assert noise["difference"] == {"value": 0.0, "ci_low": 0.0, "ci_high": 0.0}
        assert 0.5 < truth["difference"]["ci_low"] < truth["difference"]["ci_high"]
        assert truth["accuracy"]["at_30"] > noise["accuracy"]["at_30"]
    assert found["delta"]["truth"]["spearman"] == pytest.approx(1)


def test_evaluation_images_do_not_choose_the_direction():
    deltas = table()
    turned = np.where(deltas["split"] == "calibration", 1, -1) * deltas["delta"].to_numpy()
    assert compare(deltas, turned=turned)["delta"]["turned"]["gain_over_random"]["value"] == pytest.approx(-1)


def test_without_labels_nothing_is_said_of_benefit_or_accuracy():
    found = compare(table(labelled=False), truth=np.arange(400.0))
    assert set(found) == {"delta", "disagreement"}
    assert not found["delta"]["truth"].keys() & {"accuracy", "aurc", "augrc"}


def test_a_constant_oracle_has_no_gain_and_no_area():
    found = compare(table().with_columns(agree=pl.lit(True)), truth=np.arange(400.0))["disagreement"]["truth"]
    assert found["gain_over_random"] is None
    assert "auroc" not in found


def test_accuracy_follows_the_images_that_take_highs_answer():
    low, high = np.array([True, False, True, False]), np.array([True, True, False, False])
    curve = accuracy_curve(np.array([1.0, 4.0, 3.0, 2.0]), low, high, np.array([0, 0.25, 0.5, 1]))
    assert curve.tolist() == [0.5, 0.75, 0.5, 0.5]


def test_selective_risk_by_hand():
    found = selective_risk(np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, False, True, False]))
    assert found["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert found["augrc"] == pytest.approx((0 + 0 + 1 / 4 + 1 / 4) / 4)


@pytest.mark.parametrize("wrong", [[True, True, False, False], [False, True, False, True]])
def test_the_rows_of_a_constant_score_may_stand_in_any_order(wrong):
    found = selective_risk(np.ones(4), np.array(wrong))
    assert found["aurc"] == pytest.approx(0.5)
    # Of one to four kept, half are wrong.
    assert found["augrc"] == pytest.approx((0.5 + 1 + 1.5 + 2) / 4 / 4)


def test_the_oracles_meet_where_both_say_so():
    found = measure_overlap(table())
    hard = table().filter(split="evaluation")["delta"].to_numpy()
    assert found["disagreement"] == found["benefit"] == found["disagreement_and_benefit"]
    assert found["disagreement"] == pytest.approx((hard > 0.7).mean())
    assert found["far_and_benefit"] == found["far"] == pytest.approx(0.1)
    assert "benefit" not in measure_overlap(table(labelled=False))


def test_rows_carry_the_nested_names():
    rows = list_rows({"delta": {"a": {"spearman": 1.0, "gain": {"value": 2.0}}}})
    assert rows == [{"oracle": "delta", "proxy": "a", "spearman": 1.0, "gain_value": 2.0}]


def test_the_command_ranks_every_proxy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    low, deltas = real_tables(tmp_path)
    found = CliRunner().invoke(main, ["--low", str(low), "--deltas", str(deltas), "--set", "bootstrap=100"])
    assert found.exit_code == 0, found.output
    assert "delta: gain (0 random, 1 oracle)" in found.output
    document = json.loads((tmp_path / "metrics/proxies.json").read_text())
    assert set(document["delta"]) == {*PROXIES, "learned"}
    costs = json.loads((tmp_path / "metrics/proxy_costs.json").read_text())["cost_us"]
    assert costs.keys() == document["delta"].keys()
    assert min(costs.values()) > 0
    assert set(document["overlap"]) >= {"far", "disagreement", "far_and_disagreement"}
    with (tmp_path / "metrics/plots/proxies.csv").open() as stream:
        assert {row["proxy"] for row in csv.DictReader(stream)} == {*PROXIES, "learned"}
