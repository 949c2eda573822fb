import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.architecture import ARCHITECTURES
from pipeline.card import describe_scores, format_card
from pipeline.checkpoint import load_weights
from pipeline.paired import interval_of_difference
from pipeline.params.model import ModelParams
from pipeline.training.data import Images, TrainingData
from pipeline.training.heads import Head, embed, fit_head, fit_heads, to_state
from pipeline.training.publish import compare_sizes, write_weights
from pipeline.vit import TracedViT, draw_weights
from stages.heads import main
from tests.imports import ROOT
from tests.made import canvases, engine, runtime, weights
from tests.test_training import train_params, write_archive

SHARED = Head(torch.zeros(3, 2), torch.zeros(3))
# Three classes, each in a corner of its own, and one image on the wrong side.
EMBEDDINGS = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [-1.0, -1.0], [1.0, 0.1]])
DATA = {"train_images": 1, "holdout_images": 1, "left_out": 0, "sha256": "0" * 64}
RUN = {"steps": 1, "images": 1, "epochs": 1.0, "minutes": 1.0}
MACHINE = {"gpu": None, "processor": "p", "cores": 1, "versions": {"torch": "2"}}
LABELS = torch.tensor([0, 0, 1, 1, 2, 1])


def loss_of(head, decay, smoothing=0.1):
    loss = F.cross_entropy(head(EMBEDDINGS), LABELS, label_smoothing=smoothing)
    return loss + decay * (head.weight - SHARED.weight).square().sum()


def test_a_head_is_where_its_loss_is_least():
    params = train_params(head_decay=0.01)
    head = fit_head(SHARED, EMBEDDINGS, LABELS, None, params)
    for value in head:
        value.requires_grad_()
    slopes = torch.autograd.grad(loss_of(head, 0.01), head)
    assert all(float(slope.abs().max()) < 1e-3 for slope in slopes)
    assert loss_of(head, 0.01).item() < 0.7 * loss_of(SHARED, 0.01).item()


def test_a_large_decay_holds_the_weight_where_it_was():
    head = fit_head(SHARED, EMBEDDINGS, LABELS, None, train_params(head_decay=1e4))
    assert float(head.weight.abs().max()) < 1e-3


def test_what_another_answers_is_learned_beside_the_labels():
    answers = torch.tensor([0.1, 0.1, 0.8]).expand(6, 3)
    shares = [
        float(fit_head(SHARED, EMBEDDINGS, LABELS, answers, params)(EMBEDDINGS).softmax(1)[:, 2].mean())
        for params in (train_params(distillation=weight) for weight in (0.0, 1.0, 100.0))
    ]
    assert shares[0] < shares[1] < shares[2] == pytest.approx(0.8, abs=0.02)


def test_every_size_gets_a_head_for_its_own_embeddings():
    images = Images(canvases(12), torch.arange(12) % 3)
    held = Images(canvases(3, seed=1), torch.arange(3))
    seen = []
    found = fit_heads(
        weights(),
        TrainingData(images, held, 0, ""),
        [32, 64],
        runtime(),
        5,
        train_params(head_decay=1e-4),
        seen.append,
    )
    assert sum(seen) == 2 * (12 + 3)
    state = {**weights().state, **to_state(found)}
    headed = replace(weights(), state=state)
    for size_px in (32, 64):
        embeddings = embed(engine(size_px), images.pixels, lambda _: None)
        right = found[size_px].head(embeddings).argmax(1) == images.labels
        assert right.float().mean() > 0.9
        small = F.interpolate(images.pixels.float(), size=size_px).to(torch.uint8)
        traced = TracedViT(headed, size_px)(small)
        torch.testing.assert_close(traced.logits, found[size_px].head(traced.embedding))


def test_sizes_are_compared_image_by_image():
    right = {"low": torch.tensor([1, 0, 0, 0]) > 0, "mid": torch.tensor([1, 1, 0, 0]) > 0}
    right["high"] = torch.tensor([0, 1, 1, 1]) > 0
    found = compare_sizes(right)
    assert list(found) == ["mid_less_low", "high_less_mid"]
    # Differences 0, 1, 0, 0.
    assert found["mid_less_low"] == interval_of_difference(np.array([0, 1, 0, 0]), 0.95)._asdict()
    assert found["mid_less_low"]["value"] == 0.25
    assert found["high_less_mid"]["value"] == 0.25
    document = {"validation": {}, "differences": found}
    assert describe_scores(document, {})[0] == "mid less low +25.00 points [-36.24, +69.94]"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with parameters, an archive of two classes and a checkpoint trained for them."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    write_archive(Path("a.zip"))
    about = {"run": {"steps": 7}, "recipe": {"seed": 0}, "note": "any text", "version": "1.10"}
    write_weights(Path("old.safetensors"), weights(), ["n1", "n2"], about)
    return tmp_path


def heads(*settings):
    small = [
        "holdout_per_class=1",
        "resolutions.mid=",
        "model.name=static_vit",
        "model.weights=old.safetensors",
    ]
    words = ["--archive", "a.zip", "--out", "new.safetensors", "--metrics", "m.json"]
    return CliRunner().invoke(main, [*words, *(f"--set={item}" for item in (*small, *settings))])


def test_the_command_adds_heads_and_keeps_what_training_said(files):
    Path("m.json").write_text(json.dumps({"run": {"steps": 7}, "validation": {"old": 1}}))
    done = heads()
    assert done.exit_code == 0, done.output
    assert "high less low " in done.output
    found = json.loads(Path("m.json").read_text())
    assert found["run"] == {"steps": 7}
    assert set(found["validation"]) == {"low", "high"}
    with safe_open("new.safetensors", framework="pt") as file:
        assert {"head_32px.weight", "head_64px.bias", "head.weight"} <= set(file.keys())
        said = file.metadata()
    assert json.loads(said["run"]) == {"steps": 7}
    assert (said["note"], said["version"]) == ("any text", "1.10")
    fitted = json.loads(said["heads"])
    assert fitted["decay"] == found["heads"]["decay"] == 0.01
    assert (fitted["sizes_px"], fitted["seed"]) == ({"low": 32, "high": 64}, 0)
    load_weights(ModelParams(name="static_vit", weights="new.safetensors", seed=0), 64)


def test_results_that_cannot_be_kept_are_refused_before_anything_is_fitted(files):
    Path("m.json").write_text("<<<<<<< ours")
    done = heads()
    assert done.exit_code == 1
    assert "m.json" in done.output
    assert not Path("new.safetensors").exists()


def test_the_command_adds_patch_embeddings_and_says_what_each_thing_brings(files):
    done = heads()
    assert done.exit_code == 0, done.output
    found = json.loads(Path("m.json").read_text())
    assert found["stems"]["blur_px"] == 0.5
    assert set(found["stems"]["holdout"]) == {"low", "high"}
    lines = done.output.splitlines()
    fitted = [line.partition(", held out: low (32 px) ")[0] for line in lines if "->" in line]
    assert fitted == ["patch embeddings", "heads"]
    read = load_weights(ModelParams(name="static_vit", weights="new.safetensors", seed=0), 64)
    assert {"patch_embed_32px.proj.weight", "patch_embed_64px.proj.weight"} <= read.state.keys()
    table = format_card({**found, "data": DATA, "run": RUN, "machine": MACHINE}, {"low": 32, "high": 64})
    assert "| with one head for all | and one patch embedding |" in table


@pytest.mark.parametrize(
    ("setting", "kept", "left"),
    [("stem_blur=", "head", "patch_embed"), ("head_decay=", "patch_embed", "head")],
)
def test_either_may_be_left_out(files, setting, kept, left):
    done = heads(setting)
    assert done.exit_code == 0, done.output
    read = load_weights(ModelParams(name="static_vit", weights="new.safetensors", seed=0), 64)
    assert any(name.startswith(f"{kept}_64px") for name in read.state)
    assert not any(name.startswith(f"{left}_64px") for name in read.state)


def test_fitted_again_the_new_ones_take_the_place_of_the_old(files):
    assert heads().exit_code == 0
    first = load_weights(ModelParams(name="static_vit", weights="new.safetensors", seed=0), 64)
    assert heads("model.weights=new.safetensors").exit_code == 0
    again = load_weights(ModelParams(name="static_vit", weights="new.safetensors", seed=0), 64)
    for name, value in first.state.items():
        torch.testing.assert_close(again.state[name], value, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", ["other.safetensors", "other.pth"])
def test_weights_that_another_program_wrote_get_heads_where_their_classes_are_named(files, name):
    drawn = draw_weights(replace(ARCHITECTURES["static_vit"], classes=2), 0, 64)
    if name.endswith("pth"):
        torch.save(drawn.state, name)
    else:
        save_file(dict(drawn.state), name, {"format": "pt"})
    untold = heads(f"model.weights={name}")
    assert untold.exit_code == 1
    assert "does not say what its logits mean" in untold.output
    Path("classes.txt").write_text("n1\nn2\n")
    done = heads(f"model.weights={name}", "model.classes=classes.txt")
    assert done.exit_code == 0, done.output
    read = load_weights(ModelParams(name="static_vit", weights="new.safetensors", seed=0), 64)
    assert read.classes == ("n1", "n2")
    assert "head_32px.weight" in read.state


def test_images_that_the_weights_were_not_trained_on_are_refused(files):
    """Of those that they were, some would be held out that they have learned from."""
    assert heads().exit_code == 0
    about = {"data": DATA, "resolutions": {"high": 64}}
    read = load_weights(ModelParams(name="static_vit", weights="new.safetensors", seed=0), 64)
    write_weights(Path("other.safetensors"), read, ["n1", "n2"], about)
    kept = Path("new.safetensors").read_bytes()
    done = heads("model.weights=other.safetensors")
    assert done.exit_code == 1
    assert "has other training images than the weights were trained on" in done.output
    assert Path("new.safetensors").read_bytes() == kept


def test_a_size_off_the_patch_grid_is_refused_before_images_are_read(files):
    done = heads("resolutions.low=30")
    assert done.exit_code == 1
    assert "30 px is no multiple of the model's patch size 4" in done.output
    assert "read images" not in done.output


def test_a_checkpoint_that_could_not_be_read_again_is_refused_first(files):
    done = CliRunner().invoke(main, ["--archive", "none.zip", "--out", "new.bin"])
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: new.bin: no checkpoint is written under this ending; expected .safetensors\n"
    )


def test_heads_do_not_outlive_the_patch_embeddings_that_they_were_fitted_with(files):
    assert heads().exit_code == 0
    kept = Path("new.safetensors").read_bytes()
    done = heads("model.weights=new.safetensors", "head_decay=")
    assert done.exit_code == 1
    assert "new.safetensors has heads that were fitted with other patch embeddings" in done.output
    assert Path("new.safetensors").read_bytes() == kept


def test_nothing_to_fit_is_refused(files):
    done = heads("stem_blur=", "head_decay=")
    assert done.exit_code == 1
    assert "train.stem_blur, train.head_decay: both empty" in done.output


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.weights=random", "model.weights: random; heads are fitted"),
        ("model.weights=other.safetensors", "lists other classes"),
        ("seed=4", "train.seed: 4, but the weights were trained with 0"),
    ],
)
def test_what_heads_cannot_be_fitted_to_is_refused_and_nothing_written(files, setting, message):
    write_weights(Path("other.safetensors"), weights(), ["n1", "n3"], {})
    done = heads(setting)
    assert done.exit_code == 1
    assert message in done.output
    assert not Path("new.safetensors").exists()
