from dataclasses import replace

import numpy as np
import pytest

from pipeline.answers import Answers
from pipeline.embeddings import check_images
from pipeline.errors import PipelineError
from pipeline.files import sha256_of
from pipeline.measure import Records
from pipeline.replay import latency_percentiles, records_table, replay
from pipeline.summary import block_totals, summarise_scenario
from pipeline.tables import REPLAY
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
