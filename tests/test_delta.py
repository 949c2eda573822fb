import numpy as np
import pytest

from pipeline.delta import compute_deltas, histogram, summarise, to_arrow
from pipeline.errors import PipelineError
from pipeline.tables import DELTAS
from tests.made import images_table
from tests.sets import write_set

IDS = [f"val/val_{i:03d}.JPEG" for i in range(4)]
# Distances 5, 0, 1 and 2; classes of low 0, 1, 0, 0 and of high 0, 1, 1, 1.
LOW = [[3, 4], [1, 0], [0, 1], [0, 4]]
HIGH = [[0, 0], [1, 0], [0, 2], [0, 2]]
LOW_LOGITS = [[2, 1], [1, 2], [2, 1], [2, 1]]
HIGH_LOGITS = [[2, 1], [1, 2], [1, 2], [1, 2]]


@pytest.fixture
def images(tmp_path):
    # Classes n1, n2, n1, n2 in turn.
    return images_table(tmp_path / "images.parquet", 4)


def compute(tmp_path, images, low_order=range(4), high_order=range(4), high_print=None, **shared):
    low, high = tmp_path / "low", tmp_path / "high"
    pick = lambda rows, order: [rows[i] for i in order]  # noqa: E731
    write_set(low, "low", pick(IDS, low_order), pick(LOW, low_order), pick(LOW_LOGITS, low_order), **shared)
    made = shared | (high_print or {})
    write_set(
        high, "high", pick(IDS, high_order), pick(HIGH, high_order), pick(HIGH_LOGITS, high_order), **made
    )
    return compute_deltas(images, low, high)[0]


@pytest.mark.parametrize("rows", [3, 4096])
def test_distances_by_hand(tmp_path, images, rows, monkeypatch):
    monkeypatch.setattr("pipeline.delta._ROWS", rows)
    table = compute(tmp_path, images)
    assert table["image_id"].to_list() == IDS
    assert table["delta"].to_list() == [5, 0, 1, 2]
    assert table["cosine"].to_list() == [0, 1, 1, 1]
    np.testing.assert_allclose(table["delta_relative"][1:], [0, 0.5, 1])
    assert table["agree"].to_list() == [True, True, False, False]
    assert table["split"].to_list() == ["calibration"] * 2 + ["evaluation"] * 2
    assert to_arrow(table).schema == DELTAS


def test_the_order_of_the_rows_does_not_matter(tmp_path, images):
    straight = compute(tmp_path / "a", images)
    shuffled = compute(tmp_path / "b", images, low_order=[2, 0, 3, 1], high_order=[3, 2, 1, 0])
    assert shuffled.equals(straight)


def test_a_row_short_is_refused_with_counts_and_examples(tmp_path, images):
    with pytest.raises(PipelineError) as caught:
        compute(tmp_path, images, high_order=[0, 1, 3])
    assert "low has 4 images, high has 3; only in low: 1 (val/val_002.JPEG)" in str(caught.value)


def test_a_row_twice_is_refused(tmp_path, images):
    with pytest.raises(PipelineError, match=r"high: image_id not unique: \(val/val_001.JPEG\)"):
        compute(tmp_path, images, high_order=[0, 1, 1, 2])


def test_embeddings_of_other_images_are_refused(tmp_path, images):
    order = [0, 1, 2]
    with pytest.raises(PipelineError, match="images has 4 images, low has 3; only in images: 1"):
        compute(tmp_path, images, low_order=order, high_order=order)


@pytest.mark.parametrize(
    "key", ["weights_sha256", "precision", "backend", "transform", "canvas_px", "images_sha256"]
)
def test_two_models_are_never_compared(tmp_path, images, key):
    with pytest.raises(
        PipelineError, match=f"do not belong together: {key} is .* for low and other for high"
    ):
        compute(tmp_path, images, high_print={key: "other"})


def test_low_may_have_the_precision_that_it_was_asked_for_beside_high(tmp_path, images):
    mixed = {"precision": "int8", "high_precision": "float32", "backend": "another"}
    low = write_set(tmp_path / "low", "low", IDS, LOW, LOW_LOGITS, **mixed)
    high = write_set(tmp_path / "high", "high", IDS, HIGH, HIGH_LOGITS)
    compute_deltas(images, low, high)
    for changed in ({"precision": "bfloat16"}, {"weights_sha256": "other"}):
        other = write_set(tmp_path / str(changed), "high", IDS, HIGH, HIGH_LOGITS, **changed)
        with pytest.raises(PipelineError, match=f"do not belong together: {next(iter(changed))} is"):
            compute_deltas(images, low, other)


def test_the_roles_cannot_be_swapped(tmp_path, images):
    low = write_set(tmp_path / "low", "low", IDS, LOW, LOW_LOGITS)
    with pytest.raises(PipelineError, match="holds role 'low', expected 'high'"):
        compute_deltas(images, low, low)


def test_shards_of_two_runs_are_refused(tmp_path, images):
    low = write_set(tmp_path / "low", "low", IDS[:2], LOW[:2], LOW_LOGITS[:2])
    write_set(low, "low", IDS[2:], LOW[2:], LOW_LOGITS[2:], weights_sha256="other")
    high = write_set(tmp_path / "high", "high", IDS, HIGH, HIGH_LOGITS)
    with pytest.raises(PipelineError, match=r"part-00001.parquet: made under other settings"):
        compute_deltas(images, low, high)


def test_an_empty_folder_is_named(tmp_path, images):
    with pytest.raises(PipelineError, match=r"holds no part-\*.parquet; run extract"):
        compute_deltas(images, tmp_path, tmp_path)


def test_summary_without_classes_says_nothing_of_accuracy(tmp_path, images):
    summary = summarise(compute(tmp_path, images))
    assert summary["images"] == 4
    assert summary["agreement"] == 0.5
    assert summary["delta"] == {
        "mean": 2.0,
        "std": pytest.approx(np.std([5, 0, 1, 2])),
        "p50": 1.5,
        "p90": pytest.approx(4.1),
        "p99": pytest.approx(4.91),
        "max": 5.0,
    }
    assert not {"accuracy", "benefit_rate", "breakage_rate"} & summary.keys()


def test_classes_of_the_model_make_accuracy_known(tmp_path, images):
    # Truth n1, n2, n1, n2. The model's order is n1, n2: low says n1 n2 n1 n1, high says n1 n2 n2 n2.
    summary = summarise(compute(tmp_path, images, classes=["n1", "n2"]))
    assert summary["accuracy"] == {"low": 0.75, "high": 0.75}
    assert (summary["benefit_rate"], summary["breakage_rate"]) == (0.25, 0.25)


def test_the_model_may_name_the_classes_in_another_order(tmp_path, images):
    summary = summarise(compute(tmp_path, images, classes=["n2", "n1"]))
    assert summary["accuracy"] == {"low": 0.25, "high": 0.25}


def test_a_model_of_other_classes_has_no_accuracy(tmp_path, images):
    assert "accuracy" not in summarise(compute(tmp_path, images, classes=["n1", "n3"]))


def test_the_histogram_counts_every_image_once(tmp_path, images):
    bins = histogram(compute(tmp_path, images))
    assert bins["images"].sum() == 4
    assert bins["images"][-1] == 1
    assert bins["delta"][0] == pytest.approx(0.05)
