import json

import pytest
from click.testing import CliRunner

from pipeline.card import format_card
from pipeline.errors import PipelineError
from stages.results import main
from tests.imports import ROOT

TRAINED = {
    "validation": {
        "low": {"accuracy": 0.25, "ci_low": 0.2415, "ci_high": 0.2586},
        "high": {"accuracy": 0.3, "ci_low": 0.291, "ci_high": 0.309},
    },
    "differences": {"high_less_low": {"value": 0.05, "ci_low": 0.0421, "ci_high": 0.0579}},
    "holdout": {"accuracy_low": 0.26, "accuracy_high": 0.305},
    "data": {"sha256": "0123456789abcdef", "train_images": 98000, "holdout_images": 2000, "left_out": 7},
    "run": {"steps": 1200, "images": 307200, "epochs": 3.1347, "minutes": 41.96},
    "machine": {"gpu": "", "processor": "Made Up", "cores": 2, "versions": {"torch": "2.14.1"}},
}


def test_the_card_has_a_line_for_each_resolution_and_how_the_weights_came_about():
    head, _, low, high, _, order, _, account = format_card(TRAINED, {"low": 32, "high": 64}).splitlines()
    assert head == "| role | top-1 | 95 % interval | held-out training images |"
    assert low == "| low (32 px) | 25.00 % | 24.15 % to 25.86 % | 26.00 % |"
    assert high == "| high (64 px) | 30.00 % | 29.10 % to 30.90 % | 30.50 % |"
    assert "1,200 steps, 307,200 images (3.1 epochs of 98,000), 42 minutes on Made Up, 2 cores" in account
    assert "7 left out" in account
    assert order == "On the same images, paired: high less low +5.00 points [+4.21, +5.79]."


def test_the_card_shows_what_each_size_has_to_itself_is_worth_on_images_held_out():
    held = {"low": {"own": 0.27, "shared": 0.26}, "high": {"own": 0.32, "shared": 0.305}}
    heads = {"holdout": held, "machine": {**TRAINED["machine"], "gpu": "Fast"}}
    stems = {"holdout": {"low": {"own": 0.26, "shared": 0.245}, "high": {"own": 0.305, "shared": 0.3}}}
    sizes = {"low": 32, "high": 64}
    head, _, low, *_, account = format_card({**TRAINED, "heads": heads}, sizes).splitlines()
    assert head.endswith("| held-out training images | with one head for all |")
    assert low.endswith("| 27.00 % | 26.00 % |")
    assert "Heads were fitted on Fast, torch 2.14.1." in account
    head, _, low, *_ = format_card({**TRAINED, "heads": heads, "stems": stems}, sizes).splitlines()
    assert head.endswith("| with one head for all | and one patch embedding |")
    assert low.endswith("| 27.00 % | 26.00 % | 24.50 % |")
    head, _, low, *_ = format_card({**TRAINED, "stems": stems}, sizes).splitlines()
    assert head.endswith("| held-out training images | with one patch embedding for all |")
    assert low.endswith("| 26.00 % | 24.50 % |")


def test_a_role_that_the_parameters_leave_out_is_named():
    with pytest.raises(
        PipelineError, match="resolutions.high: empty, but train.json has results of high; set"
    ):
        format_card(TRAINED, {"low": 32})


@pytest.mark.parametrize("markers", [True, False])
def test_the_command_replaces_the_part_between_the_markers_or_says_what_is_missing(
    tmp_path, monkeypatch, markers
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/train.json").write_text(json.dumps(TRAINED))
    card = tmp_path / "card.md"
    card.write_text(
        "before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n" if markers else "none\n"
    )
    found = CliRunner().invoke(main, ["--card", str(card)])
    if markers:
        assert found.exit_code == 0, found.output
        assert "| low (32 px) | 25.00 %" in card.read_text()
        assert "old" not in card.read_text()
    else:
        assert found.exit_code == 1
        assert "expected each once" in found.output
        assert card.read_text() == "none\n"
