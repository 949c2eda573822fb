from collections import Counter

import pytest

from pipeline.errors import PipelineError
from pipeline.split import draw_splits, share_out


@pytest.mark.parametrize("order", ["a", "b", "c"])
def test_shares_are_in_proportion_up_to_rounding(order: str) -> None:
    counts = {"a": 5, "b": 3, "c": 2}
    # 4 images: 2, 1.2 and 0.8; 3 images: 1.5, 0.9 and 0.6.
    for total, most in ((4, {"a": (2, 2), "b": (1, 2), "c": (0, 1)}), (3, dict.fromkeys(counts, (0, 2)))):
        shares = share_out(total, counts, order)
        assert sum(shares.values()) == total
        assert all(least <= shares[name] <= largest for name, (least, largest) in most.items())
    assert share_out(10, counts, order) == counts
    assert share_out(0, {"a": 0}, order) == {"a": 0}


def test_every_image_is_drawn_as_often_as_any_other() -> None:
    """Also in small classes, which have less than one image coming to them."""
    wnids = wnids_of({"many": 12, "some": 5, "two": 2, "one": 1})
    draws = [draw_splits(wnids, 4, 6, seed) for seed in range(2000)]
    for split, share in (("calibration", 0.2), ("evaluation", 0.3)):
        drawn = Counter(image_id for draw in draws for image_id, given in draw.items() if given == split)
        # Four standard deviations of 2,000 draws.
        assert all(abs(drawn[image_id] / 2000 - share) < 0.041 for image_id in wnids)


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
