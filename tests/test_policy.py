import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.embeddings import CONDITIONS
from pipeline.errors import PipelineError
from pipeline.fit import conditions
from pipeline.policy import (
    ALWAYS_ESCALATE,
    NEVER_ESCALATE,
    check_made_for,
    decide,
    decide_one,
    escalate,
    is_number,
    read_policy,
    score,
    write_policy,
)
from tests.made import policy


def test_equal_to_the_threshold_stays_low_and_nan_escalates():
    scores = np.array([1.0, 2.0, 2.0000001, np.nan])
    assert escalate(scores, 2.0).tolist() == [False, False, True, True]


def test_the_direction_turns_the_proxy():
    assert score([1, 2], -1).tolist() == [-1.0, -2.0]
    assert decide(policy(-1.5, direction=-1), [1.0, 2.0]).tolist() == [True, False]
    assert decide(policy(1.5, direction=1), [1.0, 2.0]).tolist() == [False, True]


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("threshold", [1.5, -1.5, 0.0, NEVER_ESCALATE, ALWAYS_ESCALATE])
def test_one_image_is_decided_as_many_are(direction, threshold):
    made, proxy = policy(threshold, direction), np.array([-2, -1.5, 0, 1.5, 2, np.nan], dtype=np.float32)
    assert [decide_one(made, float(value)) for value in proxy] == decide(made, proxy).tolist()


def test_the_two_ends_hold_for_every_number_and_nan_escalates_all_the_same():
    extreme = np.array([-1e308, 0.0, 1e308, np.nan])
    assert escalate(extreme, NEVER_ESCALATE).tolist() == [False, False, False, True]
    assert escalate(extreme, ALWAYS_ESCALATE).tolist() == [True, True, True, True]
    assert not is_number(NEVER_ESCALATE)
    assert not is_number(ALWAYS_ESCALATE)
    assert is_number(-1e308)


def test_a_policy_survives_its_file_bit_for_bit(tmp_path):
    original = policy(0.1 + 0.2)
    write_policy(tmp_path / "policy.json", original)
    assert read_policy(tmp_path / "policy.json") == original


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "not a policy of format 1"),
        ({"treshold": 1}, "missing or unknown keys treshold"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, change, message):
    path = tmp_path / "policy.json"
    write_policy(path, policy(1.0))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PipelineError, match=message):
        read_policy(path)


def test_other_conditions_are_refused_by_name():
    made = replace(policy(1.0), made_for={"precision": "float32"})
    check_made_for(made, {"precision": "float32"})
    with pytest.raises(PipelineError) as caught:
        check_made_for(made, {"precision": "bfloat16"}, Path("models/policy.json"))
    assert str(caught.value) == (
        "models/policy.json: fitted with precision = float32, this run has bfloat16; "
        "set runtime.precision to what it was fitted with, or run extract, delta and fit under the settings "
        "of this run"
    )


def test_other_weights_are_told_by_the_beginnings_of_their_digests():
    made = replace(policy(1.0), made_for={"weights_sha256": "a1" * 32})
    with pytest.raises(PipelineError) as caught:
        check_made_for(made, {"weights_sha256": "b2" * 32})
    assert "the policy: fitted with weights_sha256 = a1a1a1a1a1a1, this run has b2b2b2b2b2b2; set" in str(
        caught.value
    )
    assert "set model.weights to what" in str(caught.value)


def test_every_condition_of_a_policy_is_settled_by_a_parameter():
    made_for = conditions({"low": dict.fromkeys([*CONDITIONS, "size_px"]), "high": {"size_px": 64}})
    for key in made_for:
        with pytest.raises(PipelineError, match=f"fitted with {key} = .*; set (model|runtime|resolutions)"):
            check_made_for(replace(policy(1.0), made_for=made_for), {key: "another"})
