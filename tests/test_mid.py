"""Static mid against the cascades: by image, and by what the intervals say."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from pipeline.deferral import Interval
from pipeline.errors import PipelineError
from pipeline.mid import lead_of_mid, mark_mid, read_mid, say_leads
from pipeline.promises import describe_mid
from pipeline.tables import write_table
from tests.test_fit import params
from tests.test_recommend import PRICES, samples

TABLE, HARD = samples()


def answered(right):
    """TABLE as replayed: static mid's answer is right (N,) by image."""
    answers = pl.DataFrame({"image_id": TABLE["image_id"], "top1": np.where(right, 1, 0)})
    return mark_mid(
        TABLE, answers.filter(TABLE["split"] == "evaluation"), answers.with_columns(top1=pl.lit(1))
    )


def test_static_mid_is_marked_right_by_image_where_it_was_replayed():
    few = pl.DataFrame({"image_id": ["a", "b", "c"], "split": ["evaluation", "evaluation", "calibration"]})
    answers = pl.DataFrame({"image_id": ["b"], "top1": [7]})
    expected = pl.DataFrame({"image_id": ["c", "b"], "top1": [1, 7]})
    assert mark_mid(few, answers, expected)["mid_right"].to_list() == [None, True, None]
    with pytest.raises(PipelineError, match="no answers of static mid"):
        mark_mid(few, answers.with_columns(image_id=pl.lit("z")), expected)


@pytest.mark.parametrize(("labelled", "right"), [(True, [True, False]), (False, [False, True])])
def test_static_mid_is_held_against_the_truth_or_without_labels_against_high(tmp_path, labelled, right):
    """The model knows n9 as class 0 and n1 as class 1, in another order than the data's labels."""
    images, deltas, replay = (tmp_path / f"{name}.parquet" for name in ("images", "deltas", "replay"))
    table = pl.DataFrame(
        {"image_id": ["a", "b"], "split": "evaluation", "low_correct": [labelled or None] * 2}
    )
    write_table(images, pa.table({"image_id": ["b", "a"], "wnid": ["n9", "n1"]}), {})
    write_table(
        deltas,
        pa.table({"image_id": ["a", "b"], "top1_high": [0, 1]}),
        {"low": {"classes": ["n9", "n1"]}},
    )
    rows = {
        "image_id": ["a", "b", "a", "a"],
        "scenario": ["single_stream"] * 3 + ["offline"],
        "policy": ["static_mid"] * 2 + ["static_low", "static_mid"],
        "top1": pa.array([1, 1, 0, 0], pa.int32()),
    }
    write_table(replay, pa.table(rows), {})
    marked = read_mid(table, replay, "single_stream", images, deltas)
    assert marked["mid_right"].to_list() == right


def test_the_lead_of_static_mid_is_paired_by_image():
    """Of four evaluation images the cascade keeps two low; the fifth image was not replayed."""
    table = pl.DataFrame(
        {
            "split": ["evaluation"] * 5,
            "low_correct": [False, True, False, False, True],
            "high_correct": [True, True, True, False, True],
            "agree": [False, True, False, True, True],
            "mid_right": [True, True, False, True, None],
        }
    )
    found = lead_of_mid(table, np.array([0.0, 0, 1, 1, 1]), 0.5, params())
    # The cascade is right on the second and third; mid on the first, second and fourth.
    assert found.value == pytest.approx((3 - 2) / 4)
    assert -0.75 <= found.ci_low < found.value < found.ci_high <= 1


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (0.999, "ahead of each of these cascades, outside the intervals"),
        (0.5, "behind each of these cascades, outside the intervals"),
    ],
)
def test_static_mid_is_ahead_or_behind_by_what_the_intervals_say(share, says):
    scores = {"hard": HARD, "twice": 2 * HARD}
    prices = PRICES._replace(latency_ms={**PRICES.latency_ms, "static_mid": 5.0})
    right = np.random.default_rng(3).random(len(HARD)) < share
    lines = describe_mid(answered(right), scores, prices, params())
    assert lines[-1] == (
        f"Beside cascades that cost no more than it, in accuracy, static mid is {says}. "
        "Tried: hard, twice; paired on 1,000 images."
    )
    reached = 100 * right[1::2].mean()
    assert f"| static mid | 5.00 | – | {reached:.1f} % | – | – |" in lines
    cells = [cell.strip() for cell in lines[3].split("|")]
    ahead = float(cells[6].split()[0])
    assert ahead == pytest.approx(reached - float(cells[4].rstrip(" %")), abs=0.06)


def test_what_is_within_the_intervals_is_told_apart():
    leads = {
        "a": Interval(0.02, 0.01, 0.03),
        "b": Interval(0.01, -0.01, 0.03),
        "c": Interval(0.03, 0.02, 0.04),
        "d": Interval(-0.02, -0.03, -0.01),
    }
    assert say_leads(leads, "agreement", 50) == (
        "Beside cascades that cost no more than it, in agreement, static mid is ahead of a, c, outside the "
        "intervals; ahead of b, within the intervals; behind d, outside the intervals. "
        "Tried: a, b, c, d; paired on 50 images."
    )
    assert say_leads({}, "accuracy", 50) == "No cascade that was tried is as cheap as static mid."
