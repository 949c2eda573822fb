import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.files import write_json
from pipeline.machine import describe_machine, name_processor
from pipeline.plan import BatchCosts, Point, break_even_rate, read_batch_costs, replay_rates
from pipeline.policy import ALWAYS_ESCALATE, NEVER_ESCALATE, escalate, write_policy
from pipeline.thresholds import at_rate
from stages.plan import _document, _lines, main
from tests.made import policy, runtime, weights
from tests.replays import PARAMS, bench

PROFILE = {
    "low": {"latency_ms": {"mean": 2.0}, "batch_ms_per_image": {"4": 1.0, "2": 1.5}},
    "high": {"latency_ms": {"mean": 8.0}, "batch_ms_per_image": {"4": 6.0, "2": 5.0}},
}


def test_costs_are_those_of_one_image_or_of_the_cheapest_batch():
    assert read_batch_costs(PROFILE, "single_stream") == BatchCosts(2.0, 8.0, 1, 1)
    assert read_batch_costs(PROFILE, "offline") == BatchCosts(1.0, 5.0, 4, 2)


def test_break_even_by_hand():
    # At 75 % a cascade costs 2 + 0.75 * 8 = 8, as always-high does.
    assert break_even_rate(BatchCosts(2.0, 8.0, 1, 1)) == 0.75
    assert break_even_rate(BatchCosts(9.0, 8.0, 1, 1)) == 0.0


@pytest.mark.parametrize(("rate", "escalated"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_a_threshold_for_every_rate(rate, escalated):
    scores = np.array([0.3, 0.1, 0.4, 0.2])
    assert escalate(scores, at_rate(scores, rate)).sum() == escalated
    assert at_rate(scores, 0.0) == NEVER_ESCALATE
    assert at_rate(scores, 1.0) == ALWAYS_ESCALATE


def test_every_rate_is_replayed(sample):
    made, _ = bench(sample)
    costs = BatchCosts(2.0, 8.0, 1, 1)
    points = replay_rates(
        made, sample, "single_stream", costs, PARAMS, lambda _: None, rates=(0.0, 0.43, 1.0)
    )
    assert [point.reached for point in points] == pytest.approx([0, 3 / 7, 1])
    assert points[0].predicted == 4.0
    assert points[2].predicted == pytest.approx(1 / 1.25)
    assert all(point.replayed > 0 for point in points)
    assert {point.stable for point in points} <= {True, False}
    few = PARAMS.model_copy(update={"single_stream_block": 4})
    (point,) = replay_rates(made, sample, "single_stream", costs, few, lambda _: None, rates=(0.43,))
    assert point.stable is None


def test_rates_whose_replay_was_not_stable_are_named():
    points = [Point(0.0, 0.0, 4.0, 3.9, True), Point(0.05, 0.05, 3.3, 2.0, False)]
    assert _lines(BatchCosts(2.0, 8.0, 1, 1), points, "use --count 75 or more")[-1] == (
        "  NOT stable, leave the machine alone and repeat: 5.0% escalated."
    )
    assert "stable" not in "".join(_lines(BatchCosts(2.0, 8.0, 1, 1), points[:1], "use --count 75 or more"))
    unknown = [points[0]._replace(stable=None)]
    assert _lines(BatchCosts(2.0, 8.0, 1, 1), unknown, "use --count 75 or more")[-1] == (
        "  Whether it was stable is not known, of so few images: use --count 75 or more."
    )


@pytest.mark.parametrize(("replayed", "pays"), [((1.1, 0.7), 0), ((1.1, 1.0), 0), ((1.2, 1.1), 1)])
def test_it_is_said_where_adaptive_inference_does_not_pay(replayed, pays):
    costs = BatchCosts(7.0, 8.0, 1, 1)
    points = [Point(rate, rate, 1.1, times, True) for rate, times in zip((0.0, 0.1), replayed, strict=True)]
    says = "  Adaptive inference does NOT pay on this machine: no rate is faster than always-high."
    assert (says in _lines(costs, points, "use --count 75 or more")) == (not pays)
    assert _document(costs, points)["pays"] == pays


@pytest.fixture
def profiled(project):
    """What profile writes, as far as plan reads it, and a policy that does not say what it was made for."""
    found = {role: PROFILE[role] | {"size_px": size_px} for role, size_px in (("low", 32), ("high", 64))}
    made = {"backend": "eager", "precision": "float32", "threads": runtime().threads}
    found |= made | {"weights_sha256": weights().sha256} | name_processor(describe_machine())
    write_json(project / "metrics/profile.json", found)
    write_policy(project / "models/policy.json", policy(0.5))
    return found


def plan():
    found = CliRunner().invoke(main, ["--set", "runtime.backend=eager", "--set", "runtime.precision=float32"])
    assert found.exit_code == 1
    return found.output


def test_a_policy_of_other_weights_is_refused(profiled):
    digest = profiled["weights_sha256"][:12]
    assert f"models/policy.json: fitted with weights_sha256 = None, this run has {digest};" in plan()


@pytest.mark.parametrize("key", ["weights_sha256", "instructions"])
def test_costs_of_other_weights_or_another_processor_are_refused(profiled, project, key):
    write_json(project / "metrics/profile.json", profiled | {key: "other"})
    assert f"profile.json: measured with {key} other, this run has {profiled[key][:12]}" in plan()


def test_costs_of_another_engine_are_refused(project):
    write_json(project / "metrics/profile.json", PROFILE | {"backend": "cudagraph", "precision": "float32"})
    write_policy(project / "models/policy.json", policy(0.5))
    found = CliRunner().invoke(main, ["--set", "runtime.backend=eager"])
    assert found.exit_code == 1
    assert (
        "profile.json: measured with backend cudagraph, this run has eager; run adaptive-vit profile"
        in found.output
    )
