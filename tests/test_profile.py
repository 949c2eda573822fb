import pytest
from click.testing import CliRunner

from pipeline.files import read_json, write_json
from pipeline.machine import describe_machine, name_processor
from pipeline.plan import read_batch_costs
from pipeline.profile import count_flops, profile_roles, time_batches
from stages.profile import main
from tests import made
from tests.made import engine, runtime, weights


def flops_by_hand(tokens: int) -> int:
    """Two operations per multiply-add, of every matrix product of static_vit at `tokens` tokens."""
    width, depth, classes, patch_values = 192, 12, 200, 3 * 4 * 4
    patches = (tokens - 1) * patch_values * width
    projections = tokens * (width * 3 * width + width * width + 2 * width * 4 * width)
    attention = 2 * tokens * tokens * width
    return 2 * (patches + depth * (projections + attention) + width * classes)


@pytest.mark.parametrize(("size_px", "tokens"), [(32, 65), (64, 257)])
def test_flops_are_those_counted_by_hand(size_px, tokens):
    assert count_flops(engine(size_px).model, size_px) == flops_by_hand(tokens)


def test_costs_of_both_roles():
    sizes_px = {"low": 32, "mid": 48, "high": 64}
    costs = profile_roles(weights(), sizes_px, runtime(), batch_size=4, runs=30, within=0.5)
    assert costs["low"]["tokens"] == 65
    assert costs["high"]["parameters"] - costs["low"]["parameters"] == (257 - 65) * 192
    assert costs["low"]["latency_ms"].keys() == {"mean", "p50", "p90"}
    assert costs["flops_ratio"] == flops_by_hand(257) / flops_by_hand(65)
    assert costs["low"]["batch_ms_per_image"].keys() == {"4", "2"}
    assert costs["latency_ratio"] > 1


EAGER = ["--set", "runtime.backend=eager", "--set", "runtime.precision=float32"]


def test_the_costs_are_stamped_with_weights_and_processor(project, monkeypatch):
    cost = {"latency_ms": {"p50": 1.0}, "gflops": 1.0, "stable": 0}
    monkeypatch.setattr(
        "stages.profile.profile_roles", lambda _weights, roles, *_: dict.fromkeys(roles, cost)
    )
    write_json(project / "data/probe/machine.json", describe_machine())
    ended = CliRunner().invoke(main, EAGER)
    assert ended.exit_code == 0
    assert "low: 1.00 ms, 1.000 GFLOP; NOT stable, leave the machine alone and repeat\n" in ended.output
    found = read_json(project / "metrics/profile.json")
    assert found.items() >= name_processor(describe_machine()).items()
    assert found["weights_sha256"] == weights().sha256


def test_the_name_of_another_machine_is_not_put_onto_costs(project):
    write_json(project / "data/probe/machine.json", describe_machine() | {"processor": "another"})
    found = CliRunner().invoke(main, EAGER)
    assert found.exit_code == 1
    assert "machine.json: describes another machine or installation (processor another, here" in found.output
    assert not (project / "metrics").exists()


def test_a_batch_of_one_has_a_cost_too():
    spec = made.spec(32)
    (by_size,) = time_batches({"low": spec}, 1).values()
    assert by_size.keys() == {1}
    profile = {role: {"batch_ms_per_image": {"1": 2.0}} for role in ("low", "high")}
    assert read_batch_costs(profile, "offline") == (2.0, 2.0, 1, 1)
