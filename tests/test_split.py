from collections import Counter

import pytest

from pipeline.errors import PipelineError
from pipeline.split import draw_splits, share_out


def test_shares_by_largest_remainder() -> None:
    counts = {"a": 5, "b": 3, "c": 2}
    # 4 images: 2.0, 1.2, 0.8 -> whole parts 2, 1, 0; the one left goes to c.
    assert share_out(4, counts, counts, "") == {"a": 2, "b": 1, "c": 1}
    # 3 images: 1.5, 0.9, 0.6 -> 1, 0, 0; two left go to b and c.
    assert share_out(3, counts, counts, "") == {"a": 1, "b": 1, "c": 1}
    assert share_out(10, counts, counts, "") == counts


def test_shares_never_exceed_what_is_free() -> None:
    assert share_out(3, {"a": 2, "b": 2}, {"a": 1, "b": 2}, "") == {"a": 1, "b": 2}


def wnids_of(counts: dict[str, int]) -> dict[str, str]:
    return {f"{wnid}_{i}": wnid for wnid, count in counts.items() for i in range(count)}


def test_both_splits_are_stratified_and_disjoint() -> None:
    wnids = wnids_of({"a": 10, "b": 20, "c": 30})
    drawn = draw_splits(wnids, 12, 18, seed=0)
    counted = Counter((split, wnids[image_id]) for image_id, split in drawn.items())
    assert counted == {
        ("calibration", "a"): 2,
        ("calibration", "b"): 4,
        ("calibration", "c"): 6,
        ("evaluation", "a"): 3,
        ("evaluation", "b"): 6,
        ("evaluation", "c"): 9,
    }


def test_every_image_can_be_drawn() -> None:
    wnids = wnids_of({"a": 1, "b": 1, "c": 5})
    assert Counter(draw_splits(wnids, 4, 3, seed=0).values()) == {"calibration": 4, "evaluation": 3}


def test_the_draw_follows_the_seed_and_not_the_order() -> None:
    wnids = wnids_of({"a": 10, "b": 10})
    backwards = dict(reversed(wnids.items()))
    assert draw_splits(wnids, 4, 4, seed=0) == draw_splits(backwards, 4, 4, seed=0)
    assert draw_splits(wnids, 4, 4, seed=0) != draw_splits(wnids, 4, 4, seed=1)


def test_more_evaluation_images_leave_the_calibration_split_alone() -> None:
    wnids = wnids_of({"a": 10, "b": 10})
    small, large = draw_splits(wnids, 5, 3, seed=0), draw_splits(wnids, 5, 14, seed=0)
    assert all(large[image_id] == split for image_id, split in small.items() if split == "calibration")


def test_draws_smaller_than_the_classes_do_not_separate_the_splits_by_class() -> None:
    wnids = wnids_of({f"c{i:03}": 10 for i in range(100)})
    drawn = draw_splits(wnids, 50, 50, seed=0)
    classes = {
        split: {wnids[i] for i in drawn if drawn[i] == split} for split in ("calibration", "evaluation")
    }
    assert 10 < len(classes["calibration"] & classes["evaluation"]) < 40


def test_the_draw_is_the_same_on_every_machine() -> None:
    drawn = draw_splits(wnids_of({"a": 4, "b": 4}), 2, 2, seed=0)
    assert drawn == {"a_1": "calibration", "b_0": "calibration", "a_0": "evaluation", "b_2": "evaluation"}


def test_too_few_images_say_how_many_there_are() -> None:
    with pytest.raises(
        PipelineError, match=r"3 calibration and 2 evaluation images asked, 4 usable found; set"
    ):
        draw_splits(wnids_of({"a": 4}), 3, 2, seed=0)
