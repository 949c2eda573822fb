import pytest

from pipeline.errors import PipelineError
from pipeline.files import sha256_of, write_json
from pipeline.lineage import check_deltas, check_policy, check_replayed, check_running
from pipeline.tables import DELTAS, REPLAY, write_table
from tests.sets import FINGERPRINT, write_set

LOW, HIGH = FINGERPRINT | {"role": "low", "size_px": 32}, FINGERPRINT | {"role": "high", "size_px": 64}
ENVIRONMENT = {
    "images_sha256": "i",
    "weights_sha256": "w",
    "precision": "float32",
    "backend": "another",
    "sizes_px": {"low": 32, "mid": 48, "high": 64},
}


@pytest.fixture
def deltas(tmp_path):
    """An empty table: who made it is all that is asked."""
    path = tmp_path / "deltas.parquet"
    write_table(path, DELTAS.empty_table(), {"kind": "deltas", "low": LOW, "high": HIGH})
    return path


def test_deltas_of_other_embeddings_are_refused(deltas, tmp_path):
    check_deltas(deltas, write_set(tmp_path / "low", "low", ["a"], [[0.0]], [[0.0]]))
    other = write_set(tmp_path / "other", "low", ["a"], [[0.0]], [[0.0]], images_sha256="other")
    with pytest.raises(PipelineError, match=r"deltas.parquet: made from other low .*other; run delta again"):
        check_deltas(deltas, other)


def test_a_replay_of_another_policy_is_refused(tmp_path):
    policy, replay = tmp_path / "policy.json", tmp_path / "replay.parquet"
    write_json(policy, {"threshold": 0.3})
    write_table(replay, REPLAY.empty_table(), {"kind": "replay", "policy_sha256": sha256_of(policy)})
    check_policy(replay, policy)
    write_json(policy, {"threshold": 0.4})
    with pytest.raises(PipelineError, match=r"replay.parquet: ran another policy than .*; run adaptive"):
        check_policy(replay, policy)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"images_sha256": "x"}, "images_sha256 i, this run has x; run extract, delta and fit"),
        ({"weights_sha256": "x"}, "weights_sha256 w, this run has x"),
        ({"precision": "bfloat16"}, "precision float32, this run has bfloat16"),
        ({"sizes_px": {"low": 48, "high": 64}}, "low_px 32, this run has 48"),
        ({"sizes_px": {"low": 32, "high": 96}}, "high_px 64, this run has 96"),
    ],
)
def test_deltas_that_a_replay_could_not_have_made_are_refused(deltas, changed, words):
    check_running(deltas, ENVIRONMENT)
    with pytest.raises(PipelineError, match=f"deltas.parquet: made with {words}"):
        check_running(deltas, ENVIRONMENT | changed)


def test_a_precision_of_lows_own_is_told_from_none(tmp_path):
    path = tmp_path / "deltas.parquet"
    low = LOW | {"precision": "int8", "high_precision": "float32"}
    write_table(path, DELTAS.empty_table(), {"kind": "deltas", "low": low, "high": HIGH})
    check_running(path, ENVIRONMENT | {"low_precision": "int8"})
    with pytest.raises(PipelineError, match="made with low_precision int8, this run has None"):
        check_running(path, ENVIRONMENT)
    with pytest.raises(PipelineError, match="made with precision float32, this run has int8"):
        check_running(path, ENVIRONMENT | {"precision": "int8", "low_precision": "int8"})


def test_costs_of_another_replay_are_refused(deltas, tmp_path):
    path = tmp_path / "environment.json"
    write_json(path, ENVIRONMENT)
    check_replayed(deltas, path)
    write_json(path, ENVIRONMENT | {"weights_sha256": "x"})
    with pytest.raises(PipelineError, match=r"weights_sha256 w, but .*environment.json says .* with x; run"):
        check_replayed(deltas, path)


def test_a_replay_that_does_not_say_of_which_images_it_was_is_refused(deltas, tmp_path):
    path = tmp_path / "environment.json"
    write_json(path, {key: value for key, value in ENVIRONMENT.items() if key != "images_sha256"})
    with pytest.raises(PipelineError, match="with unknown; run adaptive-vit replay"):
        check_replayed(deltas, path)
