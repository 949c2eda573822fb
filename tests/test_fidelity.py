from dataclasses import replace

from pipeline.cascade import Bench
from pipeline.engines.eager import EagerEngine
from pipeline.fidelity import compare_with_eager
from pipeline.policy import NEVER_ESCALATE
from tests.made import canvases, policy, spec, weights

IMAGES = canvases(6)


def bench(made, precision="float32"):
    runtime = spec(32, "eager", precision).runtime
    return Bench(weights(), {"low": 32, "high": 64}, runtime, made, 4)


def test_the_reference_equals_itself():
    found = compare_with_eager(bench(policy(0.5)), IMAGES)
    assert found["largest_error"] == 0
    assert (found["decision_agreement"], found["within_tolerance"], found["images"]) == (1.0, 1, 6)
    assert found["low"]["top1_agreement"] == 1.0


def test_bfloat16_differs_within_its_tolerance():
    found = compare_with_eager(bench(policy(NEVER_ESCALATE), "bfloat16"), IMAGES)
    assert 0 < found["largest_error"] <= found["tolerance"] == 5e-2
    assert found["decision_agreement"] == 1.0


def test_each_role_is_held_against_the_tolerance_of_its_precision(monkeypatch):
    mixed = replace(spec(32).runtime, low_backend="eager", low_precision="bfloat16")
    asked = replace(bench(policy(NEVER_ESCALATE)), runtime=mixed)
    found = compare_with_eager(asked, IMAGES)
    assert found["low"]["logits"] > 1e-4
    assert found["high"]["logits"] == 0
    assert (found["within_tolerance"], found["tolerance"]) == (1, 5e-2)
    # An error that bfloat16 may have and float32 may not.
    blurred = replace(weights(), state={name: value * 1.002 for name, value in weights().state.items()})
    monkeypatch.setattr(
        "pipeline.fidelity.build_engine",
        lambda asked, batch_size: EagerEngine(replace(asked, weights=blurred), batch_size),
    )
    found = compare_with_eager(asked, IMAGES)
    assert found["largest_error"] > found["tolerance"] == 1e-4
    assert (found["within_tolerance"], found["largest_error_role"]) == (0, "high")


def test_an_engine_that_answers_otherwise_is_found_out(monkeypatch):
    other = replace(weights(), state={name: value * 1.5 for name, value in weights().state.items()})
    monkeypatch.setattr(
        "pipeline.fidelity.build_engine",
        lambda asked, batch_size: EagerEngine(replace(asked, weights=other), batch_size),
    )
    found = compare_with_eager(bench(policy(0.5)), IMAGES)
    assert found["largest_error"] > found["tolerance"]
    assert found["within_tolerance"] == 0
