"""Training goes on from weights as they are; only a head for other classes begins anew."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open

from pipeline.checkpoint import load_weights
from pipeline.errors import PipelineError
from pipeline.images import resize
from pipeline.params.model import ModelParams
from pipeline.training.data import Images, TrainingData
from pipeline.training.publish import write_weights
from pipeline.training.start import Start, check_held_out, read_start
from pipeline.training.state import start_run
from pipeline.vit import TracedViT, Weights
from pipeline.zoo import Normalisation
from stages.train import main
from tests.imports import ROOT
from tests.test_training import CPU, SIZES_PX, SMALL, pixels, train_params, write_archive

CLASSES = tuple(f"n{index}" for index in range(1, 4))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FEW = replace(SMALL, classes=3)


@pytest.fixture
def trained():
    """Of three classes, with a position embedding of every size's own and another normalisation."""
    model = start_run(Start(FEW), SIZES_PX, train_params(seed=7), CPU).model
    torch.manual_seed(0)
    with torch.no_grad():
        for own in model.own.values():
            own.normal_(std=0.5)
    return Weights(FEW, model.to_state(), CLASSES, "digest", HALF)


def restart(weights, with_head, classes=3):
    start = Start(replace(FEW, classes=classes), weights, with_head)
    return start_run(start, SIZES_PX, train_params(), CPU).model.eval()


def test_a_run_answers_at_every_size_as_the_weights_do_that_it_starts_from(trained):
    model = restart(trained, with_head=True)
    for size_px in SIZES_PX:
        images = resize(pixels(), size_px).float()
        with torch.no_grad():
            torch.testing.assert_close(model(images), TracedViT(trained, size_px)(images).logits)


def test_sizes_that_the_weights_were_not_made_for_get_their_positions_resampled(trained):
    state = {name: value for name, value in trained.state.items() if not name.endswith("px")}
    model = restart(replace(trained, state=state), with_head=True)
    images = resize(pixels(), 48).float()
    with torch.no_grad():
        expected = TracedViT(replace(trained, state=state), 48)(images).logits
        torch.testing.assert_close(model(images), expected)


def test_a_head_for_other_classes_begins_anew_and_the_rest_stays(trained):
    model = restart(trained, with_head=False, classes=5)
    assert model.vit.head.weight.shape == (5, FEW.width)
    for name, value in model.vit.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(value, trained.state[name]), name


def test_the_file_tells_whether_its_head_fits_the_data(tmp_path, monkeypatch):
    small = replace(SMALL, name="static_vit", width=192, depth=12, heads=3, classes=2)
    torch.manual_seed(0)
    state = small.build(64).state_dict()
    path = tmp_path / "made.safetensors"
    write_weights(path, Weights(small, state, None, ""), ["n1", "n2"], {})
    model = ModelParams(name="static_vit", weights="random", seed=0)
    same, other = (
        read_start(model, str(path), 64, classes) for classes in (["n1", "n2"], ["n1", "n3", "n4"])
    )
    assert (same.with_head, same.architecture.classes) == (True, 2)
    assert (other.with_head, other.architecture.classes) == (False, 3)
    assert (
        same.sha256
        == other.sha256
        == load_weights(model.model_copy(update={"weights": str(path)}), 64).sha256
    )
    (tmp_path / "classes.txt").write_text("n1\nn3\nn4\n")
    listed = model.model_copy(update={"classes": str(tmp_path / "classes.txt")})
    assert read_start(listed, str(path), 64, ["n1", "n3", "n4"]).with_head is False
    assert read_start(model, "random", 64, ["n1"]) == Start(replace(small, classes=200))
    with pytest.raises(PipelineError, match="train.start: .* is no file that can be read"):
        read_start(model, str(tmp_path / "none.safetensors"), 64, ["n1"])


def test_a_start_that_held_out_others_of_the_same_images_is_refused():
    data = TrainingData(Images(pixels(), torch.zeros(4)), Images(pixels(), torch.zeros(4)), 0, "digest")
    about = {"recipe": {"seed": 7, "holdout_per_class": 10}, "data": {"sha256": "digest"}}
    check_held_out(about, train_params(seed=7, holdout_per_class=10), data, same_classes=False)
    for other in ({}, {"recipe": "seed", "data": "any"}, about | {"data": {"sha256": "another"}}):
        check_held_out(other, train_params(seed=1), data, same_classes=False)
    for changed, words in (
        ({"seed": 1}, "train.seed: 1"),
        ({"holdout_per_class": 2}, "holdout_per_class: 2"),
    ):
        with pytest.raises(PipelineError, match=f"{words}, but the weights were trained with"):
            params = train_params(**{"seed": 7, "holdout_per_class": 10, **changed})
            check_held_out(about, params, data, same_classes=False)
        at_another_size = about | {"data": {"sha256": "another"}}
        with pytest.raises(PipelineError, match=f"{words}, but the weights were trained with"):
            check_held_out(at_another_size, params, data, same_classes=True)


def test_to_start_from_the_file_that_is_written_is_refused(project):
    done = CliRunner().invoke(main, ["--weights", "a.safetensors", "--set=start=a.safetensors"])
    assert done.exit_code == 1
    assert "train.start: a.safetensors is the file to be written; name another with --weights" in done.output


def test_the_command_goes_on_from_a_file_and_says_so_in_what_it_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    archive = write_archive(tmp_path / "a.zip")
    small = [
        "steps=1",
        "recipe=long",
        "batch_size=4",
        "evaluations=1",
        "holdout_per_class=1",
        "resolutions.mid=",
        "stem_blur=",
        "head_decay=",
    ]
    start = f"start={ROOT / 'models/static_vit.safetensors'}"
    arguments = ["--archive", str(archive), *(f"--set={item}" for item in [*small, start])]
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 0, ended.output
    with safe_open("models/static_vit.safetensors", framework="pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
        assert file.get_tensor("head.weight").shape == (2, 192)
    made = ModelParams(name="static_vit_local", weights=str(ROOT / "models/static_vit.safetensors"), seed=0)
    assert recipe["start"] == load_weights(made, 64).sha256
    assert load_weights(made.model_copy(update={"weights": "models/static_vit.safetensors"}), 64).classes == (
        "n1",
        "n2",
    )
