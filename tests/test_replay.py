from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.answers import Answers
from pipeline.checkpoint import load_weights
from pipeline.delta import compute_deltas, to_arrow
from pipeline.embeddings import check_images
from pipeline.engines.base import describe_transform
from pipeline.engines.eager import EagerEngine
from pipeline.errors import PipelineError
from pipeline.files import read_json, sha256_of, write_json
from pipeline.machine import describe_machine
from pipeline.measure import Records
from pipeline.params.model import ModelParams
from pipeline.policy import write_policy
from pipeline.replay import Replayed, latency_percentiles, records_table, replay
from pipeline.summary import are_stable, block_totals, summarise_scenario
from pipeline.tables import REPLAY, read_fingerprint, write_table
from stages.replay import main
from tests import made
from tests.machines import skip_without_memory
from tests.made import engine, spec, weights
from tests.replays import PARAMS, bench
from tests.sets import write_set

BLOCKS = np.array([0, 0, 1, 1])


def record(latency_ms, top1, escalated):
    answers = Answers(np.array(top1), np.array(escalated, dtype=bool))
    return Records(np.array(latency_ms, dtype=float), BLOCKS, answers)


def records(adaptive_ms=(3.5, 3.5, 15, 3.5)):
    return {
        "static_low": record([3, 3, 3, 3], [1, 1, 1, 1], [0, 0, 0, 0]),
        "static_high": record([10, 10, 10, 10], [1, 2, 3, 1], [1, 1, 1, 1]),
        "adaptive": record(adaptive_ms, [1, 1, 3, 1], [0, 0, 1, 0]),
    }


def five_times(once):
    blocks = np.concatenate([once.block + 2 * turn for turn in range(5)])
    answers = Answers(np.tile(once.answers.top1, 5), np.tile(once.answers.escalated, 5))
    return Records(np.tile(once.latency_ms, 5), blocks, answers)


def test_totals_per_block():
    assert block_totals(records()).tolist() == [[6, 20, 7, 0, 2], [6, 20, 18.5, 1, 2]]


def test_summary_by_hand():
    found = summarise_scenario("single_stream", records(), True, None, PARAMS)
    assert found["adaptive"]["latency_ms"] == {"mean": 6.375, "p50": 3.5}
    assert found["adaptive"]["images_per_s"] == pytest.approx(1000 / 6.375)
    assert found["adaptive"]["escalation_rate"] == 0.25
    assert found["adaptive"]["agreement"] == 0.75
    assert found["static_low"]["agreement"] == 0.5
    assert found["static_high"]["agreement"] == 1.0
    assert found["speedup_bound"] == pytest.approx(1 / (3 / 10 + 0.25))
    assert found["overhead_vs_ideal"] == pytest.approx(6.375 / (3 + 0.25 * 10))
    assert (found["within_bound"], found["images"], found["blocks"]) == (1, 4, 2)
    assert "accuracy" not in found["adaptive"]


def test_a_result_that_beats_the_bound_is_marked_as_no_result():
    few = records((2.0, 2.0, 2.0, 2.0))
    many = {name: five_times(record) for name, record in few.items()}
    found = summarise_scenario("single_stream", many, True, None, PARAMS)
    assert found["blocks"] == 10
    assert found["overhead_vs_ideal"] < 1
    assert found["within_bound"] == 0
    assert "within_bound" not in summarise_scenario("single_stream", few, True, None, PARAMS)


@pytest.mark.parametrize(
    ("blocks", "settled", "stable"),
    [([0, 0, 1, 2], True, 1), ([0, 0, 1, 2], False, 0), ([0, 0, 1, 1], True, 0)],
)
def test_stable_is_what_settled_and_then_stayed_so_over_three_blocks_or_more(blocks, settled, stable):
    """Offline, images of a block share its time, and would agree among themselves."""
    found = {name: replace(of_policy, block=np.array(blocks)) for name, of_policy in records().items()}
    assert summarise_scenario("offline", found, settled, None, PARAMS)["stable"] == stable


@pytest.mark.parametrize(("whole", "stable"), [(3, True), (2, False)])
def test_a_short_last_block_costs_more_and_is_no_drift(whole, stable):
    """Of whole blocks enough to tell. Columns: low, high, adaptive, escalated, images."""
    totals = np.array([*whole * [[2.0, 8.0, 3.0, 1.0, 4.0]], [1.5, 3.0, 2.0, 0.0, 1.0]])
    assert are_stable(totals, 0.05) is stable


def test_accuracy_where_the_model_knows_the_classes():
    truth = np.array([1, 0, 3, 1])
    found = summarise_scenario("single_stream", records(), True, truth, PARAMS)
    assert found["adaptive"]["accuracy"] == 0.75


def test_a_batch_has_no_percentiles_per_image():
    found = summarise_scenario("offline", records(), True, None, PARAMS)
    assert found["static_high"]["latency_ms"] == {"mean": 10.0}


def test_the_table_names_every_image_under_every_policy():
    table = records_table("offline", ["a", "b", "c", "d"], records())
    assert table.schema == REPLAY
    rows = table.to_pylist()
    assert len(rows) == 12
    assert rows[10] == {
        "image_id": "c",
        "scenario": "offline",
        "policy": "adaptive",
        "latency_ms": 15.0,
        "escalated": True,
        "top1": 3,
    }


def test_percentiles_for_the_plot():
    columns = latency_percentiles(records())
    assert columns["percentile"][0::49] == [1, 50, 99]
    assert columns["static_high"] == [10.0] * 99
    assert columns["adaptive"][49] == 3.5


def test_accuracy_oracle_and_frontier_are_what_can_be_counted_from_the_answers(sample):
    made, fitted = bench(sample)
    state = dict(weights().state)  # With a head that does not answer alike for all images.
    state["head.bias"] = -state["head.weight"] @ engine(64).run(sample.canvases).embedding.mean(0)
    differing = replace(weights(), state=state)
    answered = EagerEngine(replace(spec(64), weights=differing), 7).run(sample.canvases).logits.argmax(1)
    classes = [f"c{index}" for index in range(200)]
    for wnid in ("n1", "n2"):
        classes[answered[sample.wnids.index(wnid)]] = wnid
    known = replace(made, weights=replace(differing, classes=tuple(classes)))
    found = replay(known, sample, fitted, PARAMS, lambda _: None)
    wnid_of = dict(zip(sample.image_ids, sample.wnids, strict=True))
    for scenario in ("single_stream", "offline"):
        right, escalated = (
            {
                name: {
                    row["image_id"]: value(row)
                    for row in found.table.to_pylist()
                    if (row["scenario"], row["policy"]) == (scenario, name)
                }
                for name in ("static_low", "static_high", "adaptive")
            }
            for value in (
                lambda row: classes[row["top1"]] == wnid_of[row["image_id"]],
                lambda row: row["escalated"],
            )
        )
        for name, by_image in right.items():
            assert found.metrics[scenario][name]["accuracy"] == pytest.approx(
                np.mean(list(by_image.values()))
            )
        assert 0 < np.mean(list(right["static_high"].values())) < 1
        count = sum(escalated["adaptive"].values())
        chosen = sorted(sample.image_ids, key=lambda image_id: -fitted.oracle[image_id])[:count]
        best = [right["static_high" if i in chosen else "static_low"][i] for i in sample.image_ids]
        assert found.metrics[scenario]["oracle"]["accuracy"] == pytest.approx(np.mean(best))
    rates = found.frontier["escalation_rate"]
    at = int(np.argmin(np.abs(np.array(rates) - count / 7)))
    assert round(7 * rates[at]) == count
    assert found.frontier["accuracy_proxy"][at] == found.metrics["single_stream"]["adaptive"]["accuracy"]
    assert found.frontier["accuracy_oracle"][at] == pytest.approx(np.mean(best))


def test_a_replay_decides_as_fit_did_and_both_scenarios_answer_alike(sample):
    made, fitted = bench(sample)
    progress = []
    found = replay(made, sample, fitted, PARAMS, progress.append)
    assert sum(progress) == 14
    assert found.metrics.keys() == {"single_stream", "offline", "engine"}
    assert found.metrics["engine"]["decision_agreement"] == 1.0
    for name in ("single_stream", "offline"):
        numbers = found.metrics[name]
        assert numbers["random"]["escalation_rate"] == numbers["adaptive"]["escalation_rate"]
        assert numbers["decision_agreement"] == 1.0
        assert numbers["adaptive"]["escalation_rate"] == pytest.approx(3 / 7)
        if numbers["static_high"]["peak_memory_mb"] is None:
            skip_without_memory()
        assert numbers["static_high"]["peak_memory_mb"] > 10
    table = found.table.to_pylist()
    by_scenario = [
        [
            (row["image_id"], row["policy"], row["top1"], row["escalated"])
            for row in table
            if row["scenario"] == name
        ]
        for name in ("single_stream", "offline")
    ]
    assert by_scenario[0] == by_scenario[1]


def test_embeddings_of_other_images_are_refused(tmp_path):
    images = tmp_path / "images.parquet"
    images.write_bytes(b"those of now")
    low = write_set(tmp_path / "low", "low", ["a"], [[0.0]], [[0.0]], images_sha256=sha256_of(images))
    check_images(low, images)
    images.write_bytes(b"others")
    with pytest.raises(PipelineError, match="made from other images than .* run extract, delta and fit"):
        check_images(low, images)


def made_for():
    weights = made.weights()
    transform = describe_transform(weights.normalisation)
    shared = {"weights_sha256": weights.sha256, "transform": transform, "precision": "float32"}
    return shared | {"low_px": 32, "high_px": 64}


@pytest.mark.parametrize("key", made_for())
def test_a_policy_that_was_fitted_under_other_conditions_is_refused(sample, key):
    running, _ = bench(sample)
    policy = replace(running.policy, made_for=made_for())
    replace(running, policy=policy).check_policy(Path("p.json"))
    other = replace(policy, made_for=made_for() | {key: "other"})
    with pytest.raises(PipelineError, match=f"p.json: fitted with {key} = other, this run has"):
        replace(running, policy=other).check_policy(Path("p.json"))


@pytest.fixture
def fitted(project):
    """All that replay reads, of 14 images and random weights."""
    write_json(Path("data/probe/machine.json"), describe_machine())
    write_policy(Path("models/policy.json"), replace(made.policy(0.5), made_for=made_for()))
    images = made.images_table(Path("data/images.parquet"), 14)
    embed(images, Path("data"))
    return project


def embed(images, folder):
    """What extract and delta make of a table of images, without a model."""
    ids, rng = [f"val/val_{row:03d}.JPEG" for row in range(14)], np.random.default_rng(0)
    conditions = {key: made_for()[key] for key in ("weights_sha256", "transform", "precision")}
    low, high = (
        write_set(
            folder / "embeddings" / role,
            role,
            ids,
            rng.normal(size=(14, 2)),
            rng.normal(size=(14, 4)),
            rng.normal(size=(14, 3, 2)),
            images_sha256=sha256_of(images),
            **conditions,
        )
        for role in ("low", "high")
    )
    table, fingerprint = compute_deltas(images, low, high)
    write_table(folder / "deltas.parquet", to_arrow(table), fingerprint)


def call(*words):
    eager = ["--set", "runtime.backend=eager", "--set", "runtime.precision=float32"]
    return CliRunner().invoke(main, [*eager, *words])


def test_a_policy_of_another_low_precision_is_refused(sample):
    running, _ = bench(sample)
    mixed = replace(running.runtime, low_backend="eager", low_precision="bfloat16")
    running = replace(running, runtime=mixed, policy=replace(running.policy, made_for=made_for()))
    with pytest.raises(PipelineError, match="fitted with low_precision = None, this run has bfloat16; set r"):
        running.check_policy(Path("p.json"))
    fitted = replace(running.policy, made_for=made_for() | {"low_precision": "bfloat16"})
    replace(running, policy=fitted).check_policy(Path("p.json"))


def test_the_replay_says_on_which_images_and_machine_it_ran(fitted, monkeypatch):
    engine = {"decision_agreement": 1.0, "largest_error": 0.0, "tolerance": 0.1, "within_tolerance": 1}
    measured = Replayed({"engine": engine}, REPLAY.empty_table(), {}, {})
    monkeypatch.setattr("stages.replay.replay", lambda *_: measured)
    found = call()
    assert found.exit_code == 0, found.output
    environment = read_json(Path("metrics/environment.json"))
    assert environment["images_sha256"] == sha256_of(Path("data/images.parquet"))
    assert environment["seeds"] == {"images": 0, "replay": 0}
    assert read_fingerprint(Path("data/replay.parquet"))["precision"] == environment["precision"]
    assert "all run" not in found.stderr
    assert "asks for 8, data/images.parquet has 7 to evaluate; all run" in call("--set", "images=8").stderr
    assert environment.items() >= describe_machine().items()


def test_deltas_of_other_images_are_refused(fitted):
    other = made.images_table(Path("other/images.parquet"), 14, wnids=("n1", "n3"))
    embed(other, Path("other"))
    found = call("--deltas", "other/deltas.parquet")
    assert found.exit_code == 1
    assert (
        "deltas.parquet: made from other low embeddings than data/embeddings/low; run delta" in found.output
    )
    assert not Path("metrics").exists()


def test_embeddings_of_other_weights_than_the_run_has_are_refused(fitted):
    """Though the policy is for them."""
    weights = load_weights(ModelParams(name="static_vit", weights="random", seed=1), native_px=64)
    policy = replace(made.policy(0.5), made_for=made_for() | {"weights_sha256": weights.sha256})
    write_policy(Path("models/policy.json"), policy)
    found = call("--set", "model.seed=1")
    assert found.exit_code == 1
    others = f"{made.weights().sha256[:12]}, this run has {weights.sha256[:12]}"
    assert f"data/deltas.parquet: made with weights_sha256 {others}; run extract" in found.output


def test_the_description_of_another_machine_is_refused(fitted):
    write_json(Path("data/probe/machine.json"), describe_machine() | {"cores": 99})
    found = call()
    assert found.exit_code == 1
    assert "machine.json: describes another machine or installation (cores 99, here" in found.output
