import csv
import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms.v2 import functional

from pipeline.architecture import ARCHITECTURES, Architecture
from pipeline.archive import open_archive
from pipeline.checkpoint import load_weights
from pipeline.errors import PipelineError
from pipeline.images import decode_canvas, resize
from pipeline.params.model import ModelParams
from pipeline.params.runtime import RuntimeParams
from pipeline.params.train import RecipeParams, TrainParams
from pipeline.runtime import resolve_runtime
from pipeline.sample import draw_sample
from pipeline.training import recipe
from pipeline.training.account import name_run
from pipeline.training.augment import Mixed, crop_and_flip, erase, jitter_colors, mix, three_augment
from pipeline.training.captured import backward
from pipeline.training.data import Images, load_training
from pipeline.training.loop import Status, Trainer, _is_due, move_to, train
from pipeline.training.model import TrainableViT
from pipeline.training.publish import find_right, score_validation, write_weights
from pipeline.training.recipe import (
    choose_precision,
    compute_joint_loss,
    compute_shared_loss,
    learning_rate,
    settle,
)
from pipeline.training.start import Start
from pipeline.training.state import resume_run, start_run
from pipeline.vit import TracedViT, Weights
from pipeline.zoo import Normalisation
from stages.train import _describe, main
from tests.archives import ROOT as ROOT_FOLDER
from tests.archives import balanced, jpeg, members, write_zip
from tests.imports import ROOT

CPU = torch.device("cpu")
SIZES_PX = [32, 48, 64]
STATIC = ARCHITECTURES["static_vit"]
# For runs of some steps, which take long for the other.
SMALL = Architecture("small", 4, 64, 2, 2, 200)
SHIPPED = ROOT / "models/static_vit.safetensors"
REAL = ROOT / "../shared/data/tiny-imagenet-200-subset.zip"


def train_params(**changes):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    values |= {"steps": 4, "batch_size": 8, "holdout_per_class": 1, "evaluations": 1, "precision": "float32"}
    return TrainParams(**(values | changes))


@pytest.mark.parametrize(
    ("wanted", "device", "settled"),
    [("auto", "cpu", "short"), ("auto", "cuda", "long"), ("long", "cpu", "long"), ("short", "cuda", "short")],
)
def test_a_run_of_few_epochs_has_a_recipe_of_its_own(wanted, device, settled):
    asked = train_params(recipe=wanted)
    found = settle(asked, torch.device(device))
    own = found.model_dump(include=set(RecipeParams.model_fields))
    expected = asked.short.model_dump() if settled == "short" else asked.model_dump(include=set(own))
    assert (found.recipe, own) == (settled, expected)
    assert found.learning_rate == asked.learning_rate


@pytest.mark.parametrize(
    ("wanted", "asked", "words"),
    [
        ("short", "train.batch_size", r"train.batch_size: .* short recipe.*set train.short.batch_size"),
        ("long", "train.short.mixup", r"train.short.mixup: .* long recipe.*set train.mixup, or train.recipe"),
    ],
)
def test_a_value_of_the_recipe_that_is_not_taken_is_refused(wanted, asked, words):
    with pytest.raises(PipelineError, match=words):
        settle(train_params(recipe=wanted), CPU, {asked})
    settle(train_params(recipe=wanted), CPU, {"train.learning_rate", "train.recipe"})


def test_a_run_is_known_by_the_values_that_it_takes(data):
    """Whichever way the recipe was asked for; else its checkpoints would not be found again."""
    run, _ = start(data, train_params())

    def name(device, begun=None, **changes):
        settled = settle(train_params(**changes), torch.device(device))
        return name_run(run, begun or Start(STATIC), settled, {"low": 32, "high": 64}, data)

    assert name("cuda", recipe="auto") == name("cpu", recipe="long")
    assert name("cpu", recipe="auto") == name("cuda", recipe="short")
    other = train_params().short.model_copy(update={"batch_size": 9})
    assert name("cpu", recipe="long", short=other.model_dump()) == name("cpu", recipe="long")
    assert name("cpu", recipe="long", batch_size=9) != name("cpu", recipe="long")
    assert name("cpu", recipe="short", short=other.model_dump()) != name("cpu", recipe="short")
    assert name("cpu", recipe="long", small_until=0.5) != name("cpu", recipe="long")
    assert name("cpu", recipe="long", max_minutes=99.0) == name("cpu", recipe="long")
    weights = Weights(STATIC, {}, None, "digest")
    half = replace(weights, normalisation=Normalisation((0.5,) * 3, (0.5,) * 3))
    starts = [Start(STATIC, weights), Start(STATIC, weights, with_head=True), Start(STATIC, half)]
    assert len({name("cpu", begun) for begun in starts}) == 3


@pytest.mark.parametrize(
    ("vendor", "flags", "precision", "optimizer"),
    [
        ("GenuineIntel", {"avx2"}, "float32", "AdamW"),
        ("GenuineIntel", {"avx2", "avx512_bf16"}, "float32", "Muon"),
        ("GenuineIntel", {"avx2", "avx512_bf16", "amx_bf16"}, "bfloat16", "Muon"),
        ("AuthenticAMD", {"avx2"}, "float32", "AdamW"),
        ("AuthenticAMD", {"avx2", "avx512_bf16"}, "bfloat16", "Muon"),
    ],
)
def test_a_processor_computes_in_bfloat16_where_that_is_faster(
    monkeypatch, vendor, flags, precision, optimizer
):
    """Muon computes in it whatever the precision."""
    monkeypatch.setattr(recipe, "processor_flags", lambda: flags)
    monkeypatch.setattr(recipe, "processor_vendor", lambda: vendor)
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("bfloat16", CPU) == "bfloat16"
    run = start_run(Start(SMALL), SIZES_PX, train_params(), CPU)
    assert run.optimizer_names == [optimizer, "AdamW"]
    matrices, others = (each.param_groups[0] for each in run.optimizers)
    assert all(value.ndim == 2 for value in matrices["params"])
    assert (matrices["weight_decay"], others["weight_decay"]) == (train_params().weight_decay, 0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(count=6):
    return torch.randint(0, 256, (count, 3, 64, 64), generator=generator(), dtype=torch.uint8)


def write_archive(path, train_per_class=4, val=4):
    """Two classes, of which every image is its own."""
    wnids = ("n1", "n2")
    content = members(balanced(val // 2, wnids), wnids)
    for index in range(train_per_class * len(wnids)):
        wnid = wnids[index % 2]
        content[f"{ROOT_FOLDER}train/{wnid}/images/{wnid}_{index}.JPEG"] = jpeg(1000 + index)
    return write_zip(path, content)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive") / "a.zip")


def load(path, **changes):
    settings = {"holdout_per_class": 1, "seed": 0} | changes
    with open_archive(path) as opened:
        return load_training(opened, 64, 200, settings["holdout_per_class"], settings["seed"], lambda _: None)


@pytest.fixture(scope="module")
def data(archive):
    return load(archive)


def start(data, params):
    run = start_run(Start(SMALL), SIZES_PX, params, CPU)
    return run, Trainer(data, params, CPU)


def run_to_end(data, params, checkpoint):
    run, trainer = start(data, params)
    if checkpoint.exists():
        resume_run(run, checkpoint)
    train(run, trainer, checkpoint, lambda _: None)
    return run


def test_crops_keep_what_is_shown_and_mirror_half_of_it():
    ramp = torch.arange(64, dtype=torch.uint8).expand(32, 3, 64, 64)
    crops = crop_and_flip(ramp, 0.5, generator())
    steps = crops.diff(dim=-1)
    rising = (steps >= -1e-3).flatten(1).all(dim=1)
    falling = (steps <= 1e-3).flatten(1).all(dim=1)
    assert (rising ^ falling).all()
    assert 5 < int(rising.sum()) < 27
    shown = crops.amax(dim=(1, 2, 3)) - crops.amin(dim=(1, 2, 3))
    assert 0.5 * 0.75 * 63 < float(shown.min()) < float(shown.max()) <= 63
    assert torch.equal(crops, crop_and_flip(ramp, 0.5, generator()))
    assert not torch.equal(crops, crop_and_flip(ramp, 0.5, generator(1)))


@pytest.mark.parametrize("least_area", [0.2, 0.9, 1.0])
def test_a_crop_keeps_as_much_as_it_is_to(least_area):
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    ramps = torch.stack([rows, columns, rows])[None].expand(200, -1, -1, -1)
    crops = crop_and_flip(ramps, least_area, generator())
    height, width = ((crops[:, part].amax((1, 2)) - crops[:, part].amin((1, 2))) / 63 for part in (0, 1))
    assert float((height * width).min()) >= least_area - 1e-3
    assert (least_area < 1) == (float((height * width).min()) < 0.99)


def test_of_fewer_images_than_sizes_the_largest_are_trained():
    seen = []

    def model(images):
        seen.append(images.shape[-1])
        return torch.zeros(len(images), 2)

    for count in (2, 4):
        labels = torch.zeros(count, dtype=torch.int64)
        batch = Mixed(torch.zeros(count, 3, 64, 64), labels, labels, torch.ones(count))
        compute_shared_loss(model, batch, (32, 48, 64), train_params())
    assert seen == [48, 64, 32, 48, 64]


def test_mixing_tells_how_much_of_each_image_is_seen():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 64, 64)
    mixed = mix(images, torch.arange(4), 1.0, 0.0, generator())
    assert mixed.others.tolist() == [3, 0, 1, 2]
    for row in range(4):
        own = (mixed.images[row, 0] == row).float().mean()
        other = (mixed.images[row, 0] == mixed.others[row]).float().mean()
        assert float(own) == pytest.approx(float(mixed.share[row]))
        assert float(other) == pytest.approx(1 - float(mixed.share[row]))
    assert float(mixed.share.min()) < 1


def test_mixup_lets_another_image_shine_through_where_none_was_cut_in():
    images = torch.rand(64, 3, 8, 8, generator=generator())
    mixed = mix(images, torch.arange(64), 0.3, 0.4, generator())
    others = images.roll(1, dims=0)
    share = mixed.share[:, None, None, None]
    blended = torch.isclose(mixed.images, share * images + (1 - share) * others, atol=1e-6).all(dim=(1, 2, 3))
    cut = ((mixed.images == images) | torch.isclose(mixed.images, others)).all(dim=(1, 2, 3))
    untouched = mixed.share == 1
    assert (blended | cut).all()
    assert (blended & ~untouched).sum() > 10
    assert (cut & ~untouched).sum() > 10
    assert untouched.sum() > 5


def test_chances_that_exclude_each_other_add_up_to_one_at_most():
    train_params(cutmix=0.5, mixup=0.5)
    with pytest.raises(ValueError, match=r"cutmix \(0.8\) and mixup \(0.3\) exclude each other"):
        train_params(cutmix=0.8, mixup=0.3)


def test_three_augment_takes_each_of_its_three_for_a_third_of_the_images():
    images = pixels(300).float()
    changed = three_augment(images, 1.0, generator())
    grey = (changed.amax(dim=1) - changed.amin(dim=1) < 1e-3).flatten(1).all(dim=1)
    solarised = (changed == torch.where(images >= 128, 255 - images, images)).flatten(1).all(dim=1)
    blurred = ~grey & ~solarised
    assert all(70 < int(kind.sum()) < 130 for kind in (grey, solarised, blurred))
    luma = functional.rgb_to_grayscale(images)
    torch.testing.assert_close(changed[grey], luma.expand(-1, 3, -1, -1)[grey], rtol=1e-3, atol=0.1)
    rough = [values[blurred].diff(dim=-1).abs().mean() for values in (changed, images)]
    assert rough[0] < 0.9 * rough[1]
    assert torch.equal(three_augment(images, 0.0, generator()), images)


def test_colours_are_changed_by_no_more_than_they_may():
    flat = torch.full((100, 3, 8, 8), 100.0)
    levels = jitter_colors(flat, 0.3, generator()).mean(dim=(1, 2, 3))
    assert 69.9 < float(levels.min()) < 80
    assert 120 < float(levels.max()) < 130.1
    changed = jitter_colors(pixels(50).float(), 0.3, generator())
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 255
    assert torch.equal(jitter_colors(flat, 0.0, generator()), flat)


def test_without_chance_nothing_is_mixed_or_erased():
    images = pixels().float()
    mixed = mix(images, torch.arange(6), 0.0, 0.0, generator())
    assert torch.equal(mixed.images, images)
    assert mixed.share.tolist() == [1.0] * 6
    grey = torch.full((1, 3, 1, 1), 7.0)
    assert torch.equal(erase(images, 0.0, grey, generator()), images)
    assert ((erase(images, 1.0, grey, generator()) == 7).all(dim=1).flatten(1).sum(1) > 0).all()


def test_what_was_trained_is_what_the_engines_run():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = TrainableViT(STATIC, SIZES_PX, 0.0).eval()
    weights = Weights(STATIC, model.to_state(), None, "")
    for size_px in SIZES_PX:
        images = resize(pixels(), size_px)
        torch.testing.assert_close(
            model(images.float()), TracedViT(weights, size_px)(images).logits, rtol=1e-4, atol=1e-5
        )


def test_the_position_embedding_of_a_size_is_the_largest_resampled_and_one_of_its_own():
    model = TrainableViT(STATIC, SIZES_PX, 0.0)
    nn.init.ones_(model.own["32"])
    state = model.to_state()
    only_largest = {
        name: value for name, value in state.items() if name not in ("pos_embed_32px", "pos_embed_48px")
    }
    own, resampled = (
        TracedViT(Weights(STATIC, s, None, ""), 32).vit.pos_embed for s in (state, only_largest)
    )
    assert torch.equal(own, state["pos_embed_32px"])
    assert own.shape == resampled.shape
    torch.testing.assert_close(own, resampled + 1)
    assert TracedViT(Weights(STATIC, state, None, ""), 40)(resize(pixels(), 40)).logits.shape == (6, 200)


def test_sizes_join_one_after_the_other_and_learn_from_those_before(data, tmp_path):
    params = train_params(smallest_until=0.3, small_until=0.6, warmup=0.0)
    run, trainer = start(data, params)
    seen = []
    run.model.vit.blocks.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[1]))
    for progress, tokens in ((0.1, [65]), (0.3, [65, 145]), (0.6, [65, 145, 257])):
        before, run.progress = run.model.position(64).detach().clone(), progress
        trainer.take_step(run)
        assert sorted(seen) == tokens
        seen.clear()
        assert not torch.equal(before, run.model.position(64))


def test_what_the_card_says_of_the_short_recipe_is_what_its_run_wrote():
    found = json.loads((ROOT / "models/short_recipe.json").read_text())
    low, mid, high = (
        f"{100 * found['validation'][role]['accuracy']:.1f} %" for role in ("low", "mid", "high")
    )
    told = f"{low} at 32 px, {mid} at 48 px and {high} at 64 px on the validation images, after "
    told += f"{found['run']['epochs']:.1f} epochs"
    assert told in " ".join((ROOT / "models/README.md").read_text().split())


def test_a_size_that_would_leave_again_is_refused():
    with pytest.raises(ValueError, match=r"smallest_until \(0.5\) is more than small_until \(0.2\)"):
        train_params(smallest_until=0.5, small_until=0.2)


def test_both_losses_start_at_the_one_of_chance():
    model = TrainableViT(STATIC, SIZES_PX, 0.0)
    batch = mix(pixels().float(), torch.arange(6), 0.5, 0.0, generator())
    params = train_params(distillation=0.0)
    chance = pytest.approx(math.log(200), rel=0.1)
    with torch.no_grad():
        assert float(compute_shared_loss(model, batch, SIZES_PX, params)) == chance
        assert float(compute_joint_loss(model, model, batch, SIZES_PX, params)) == chance
        alone = replace_batch(batch, 1)
        assert float(compute_shared_loss(model, alone, SIZES_PX, params)) == chance


def replace_batch(batch, count):
    return type(batch)(*(value[:count] for value in batch))


def test_every_size_learns_from_a_teacher_that_gets_no_gradient():
    batch = mix(pixels().float(), torch.arange(6), 0.0, 0.0, generator())
    taught = torch.randn(6, 200, generator=generator(1)).requires_grad_()

    def gradients(distillation):
        params = train_params(distillation=distillation, between_share=0.5)
        asked, answers = [], {}

        def model(images):
            logits = torch.randn(len(images), 200, generator=generator(images.shape[-1])).requires_grad_()
            answers[images.shape[-1]] = logits
            return logits

        def teacher(images):
            asked.append(images.shape[-1])
            return taught * 1.0

        compute_joint_loss(model, teacher, batch, [32, 48, 64], params).backward()
        assert asked == [64]
        assert taught.grad is None
        assert {size_px: len(logits) for size_px, logits in answers.items()} == {32: 6, 48: 3, 64: 6}
        return [logits.grad for _, logits in sorted(answers.items())]

    for alone, distilled in zip(gradients(0.0), gradients(5.0), strict=True):
        assert not torch.allclose(alone, distilled)


def test_the_learning_rate_rises_and_falls_to_zero():
    factors = [learning_rate(progress, 0.1) for progress in (0, 0.05, 0.1, 0.55, 1)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_a_run_taken_up_again_ends_with_the_weights_of_one_never_stopped(data, tmp_path):
    params = train_params(drop_path=0.2, cutmix=0.5, erasing=0.5, small_until=0.5)
    whole = run_to_end(data, params, tmp_path / "whole.pt")
    run, _ = start(data, params)
    stopped = tmp_path / "stopped.pt"

    def stop(status):
        if status.progress >= 0.5:
            raise KeyboardInterrupt

    eager = Trainer(data, params.model_copy(update={"checkpoint_minutes": 1e-9}), CPU)
    with pytest.raises(KeyboardInterrupt):
        train(run, eager, stopped, stop)
    again = run_to_end(data, params, stopped)
    assert again.step == whole.step == 4
    assert [row["loss"] for row in again.curve] == [row["loss"] for row in whole.curve]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(value, again.averaged.state_dict()[name]), name


def test_a_few_steps_on_the_sample_lower_the_loss(tmp_path):
    draw_sample(tmp_path / "sample.zip")
    whole = load(tmp_path / "sample.zip")
    few = replace(whole, train=first(whole.train, 12), holdout=first(whole.holdout, 2))
    params = train_params(steps=10, batch_size=12, small_until=1.0, crop_area=1.0, warmup=0.0)
    run = run_to_end(few, params, tmp_path / "run.pt")
    untrained, _ = start(few, params)
    losses = []
    for model in (untrained.model, run.model):
        batch = mix(few.train.pixels.float(), few.train.labels, 0.0, 0.0, generator())
        with torch.no_grad():
            losses.append(float(compute_shared_loss(model.eval(), batch, SIZES_PX, params)))
    assert losses[1] < losses[0] - 0.5


def first(images, count):
    return Images(images.pixels[:count], images.labels[:count])


def test_the_clock_ends_a_run_without_steps(data, tmp_path):
    run = run_to_end(data, train_params(steps=None, max_minutes=1e-6), tmp_path / "run.pt")
    assert (run.step, run.progress, len(run.curve)) == (1, 1.0, 1)


def test_by_the_clock_evaluations_take_no_more_than_a_tenth_of_the_time(data):
    params = train_params(steps=None, max_minutes=15, evaluations=10)
    run, _ = start(data, params)
    run.progress, run.seconds, run.evaluated_s = 0.5, 1090.0, 1000.0
    assert _is_due(run, params)
    run.evaluation_s = 80.0
    assert not _is_due(run, params)
    run.seconds = 1720.0
    assert _is_due(run, params)


def test_a_run_taken_up_again_under_a_budget_that_is_used_up_is_evaluated(data, tmp_path):
    """Its last row is what is told of its weights."""
    run, trainer = start(data, train_params(steps=4, evaluations=1))
    run.step = 4
    train(run, trainer, tmp_path / "run.pt", lambda _: None)
    assert [row["step"] for row in run.curve] == [4]
    train(run, trainer, tmp_path / "run.pt", lambda _: None)
    assert [row["step"] for row in run.curve] == [4]


def test_a_finished_run_goes_on_under_a_larger_budget_and_is_evaluated_at_its_end(data, tmp_path):
    checkpoint = tmp_path / "run.pt"
    assert [row["step"] for row in run_to_end(data, train_params(evaluations=2), checkpoint).curve] == [2, 4]
    longer = run_to_end(data, train_params(steps=5, evaluations=2), checkpoint)
    assert (longer.step, [row["step"] for row in longer.curve]) == (5, [2, 4, 5])


def test_held_out_images_are_drawn_from_every_class_and_are_not_trained_on(data):
    assert sorted(data.holdout.labels.tolist()) == [0, 1]
    assert sorted(data.train.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    contents = {image.numpy().tobytes() for image in data.train.pixels}
    assert len(contents) == 6
    assert not contents & {image.numpy().tobytes() for image in data.holdout.pixels}


def write_archive_with_copy(path):
    """Between its training images one that a validation image shows, too."""
    archive = write_archive(path)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(f"{ROOT_FOLDER}train/n1/images/n1_copy.JPEG", jpeg(0))
    return archive


def test_a_training_image_that_is_also_a_validation_image_is_left_out(tmp_path):
    found = load(write_archive_with_copy(tmp_path / "a.zip"))
    assert (found.left_out, len(found.train.labels)) == (1, 6)
    assert found.sha256 == load(write_archive(tmp_path / "b.zip")).sha256


def test_every_training_image_keeps_its_label_and_its_place(tmp_path):
    archive = write_archive_with_copy(tmp_path / "a.zip")
    with open_archive(archive) as opened:
        shown = [decode_canvas(opened.read(image.member), 64).numpy().tobytes() for image in opened.training]
        labels = [("n1", "n2").index(image.wnid) for image in opened.training]
    found = load(archive)
    for part in (found.train, found.holdout):
        places = [shown.index(image.numpy().tobytes()) for image in part.pixels]
        assert places == sorted(places)
        assert [labels[place] for place in places] == part.labels.tolist()


def without_training(archive, path, wnid):
    """A copy of the archive in which one class has no training images."""
    with zipfile.ZipFile(archive) as file:
        kept = [name for name in file.namelist() if f"train/{wnid}/" not in name]
        return write_zip(path, {name: file.read(name) for name in kept})


def test_too_few_images_of_a_class_or_none_at_all_are_errors(archive, tmp_path):
    with pytest.raises(PipelineError, match="set it to 3 or less"):
        load(archive, holdout_per_class=4)
    with pytest.raises(PipelineError, match="class n1 has 0 training images of its own"):
        load(without_training(archive, tmp_path / "empty.zip", "n1"))
    with pytest.raises(PipelineError, match="holds no training images"):
        load(write_archive(tmp_path / "none.zip", train_per_class=0))
    alone = {"val/n1/1.jpg": jpeg(0), **{f"train/n1/{index}.jpg": jpeg(index) for index in range(1, 6)}}
    with pytest.raises(PipelineError, match="lists one class, so that there is nothing to tell apart"):
        load(write_zip(tmp_path / "alone.zip", alone))
    wnids = tuple(f"n{index:03d}" for index in range(201))
    content = members(balanced(1, wnids), wnids) | {f"{ROOT_FOLDER}train/n000/images/a.JPEG": jpeg(999)}
    with pytest.raises(PipelineError, match="lists 201 classes, the model has 200"):
        load(write_zip(tmp_path / "many.zip", content))


def test_a_checkpoint_says_what_it_is_and_is_refused_where_it_is_not(tmp_path):
    state = TrainableViT(STATIC, SIZES_PX, 0.0).to_state()
    path = tmp_path / "made.safetensors"
    write_weights(path, Weights(STATIC, state, None, ""), ["n01"], {"seed": 3})
    read = load_weights(ModelParams(name="static_vit", weights=str(path), seed=0), 64)
    assert read.classes == ("n01",)
    torch.testing.assert_close(read.state["pos_embed_48px"], state["pos_embed_48px"].half().float())
    other = {"architecture": json.dumps({"name": "static_vit", "patch_px": 8})}
    save_file(state, path, other)
    with pytest.raises(PipelineError, match="says architecture"):
        load_weights(ModelParams(name="static_vit", weights=str(path), seed=0), 64)


def test_a_damaged_state_is_named(data, tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(b"not a state")
    run, _ = start(data, train_params())
    with pytest.raises(PipelineError, match="delete it to begin anew"):
        resume_run(run, path)


def test_the_command_writes_weights_results_and_curve(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    small = ["steps=2", "evaluations=1", "holdout_per_class=1", "resolutions.mid="]
    small += ["recipe=short", "short.batch_size=4", "short.stem_blur=0.5", "short.head_decay=0.01"]
    Path("others.txt").write_text("cat\ndog\nsheep\n")  # Of other weights: it is not these that they name.
    small += ["model.classes=others.txt"]
    arguments = ["--archive", str(archive), *(f"--set={item}" for item in small)]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0, first.output
    assert "train: short recipe, batch_size 4, smallest_until 0.6, small_until 0.7," in first.output
    found = json.loads(Path("metrics/train.json").read_text())
    assert set(found["validation"]) == set(found["heads"]["holdout"]) == {"low", "high"}
    assert set(found["stems"]["holdout"]) == {"low", "high"}
    assert set(found["differences"]) == {"high_less_low"}
    assert found["run"]["steps"] == 2
    with Path("metrics/plots/training.csv").open() as stream:
        row = next(csv.DictReader(stream))
    assert set(row) >= {"images", "loss", "accuracy_low", "accuracy_high"}
    assert row["accuracy_mid"] == row["train_accuracy_mid"] == ""  # `dvc plots` asks for the first.
    made = ModelParams(name="static_vit_local", weights="models/static_vit.safetensors", seed=0)
    kept = load_weights(made, 64).sha256
    again = CliRunner().invoke(main, arguments)
    assert "goes on after step 2" in again.output
    assert load_weights(made, 64).sha256 == kept


@pytest.mark.parametrize("value", [float("nan"), 1e5])
def test_weights_that_are_no_numbers_in_float16_are_not_written(tmp_path, value):
    state = {"norm.weight": torch.tensor([1.0, value])}
    with pytest.raises(PipelineError, match="not written: norm.weight holds NaN, or a number beyond"):
        write_weights(tmp_path / "a.safetensors", Weights(STATIC, state, None, ""), ["n1"], {})
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_could_not_be_read_again_is_refused_first(project):
    done = CliRunner().invoke(main, ["--archive", "none.zip", "--weights", "new.bin"])
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: new.bin: no checkpoint is written under this ending; expected .safetensors\n"
    )


@pytest.mark.skipif(not REAL.exists(), reason="the real images are not there")
def test_the_shipped_weights_are_as_good_as_the_committed_figure():
    committed = json.loads((ROOT / "metrics/train.json").read_text())["validation"]["low"]["accuracy"]
    shipped = load_weights(ModelParams(name="static_vit_local", weights=str(SHIPPED), seed=0), 64)
    params = RuntimeParams(device="cpu", backend="auto", precision="float32", batch_size=64, threads=None)
    runtime = resolve_runtime(params, shipped.architecture)
    with open_archive(REAL) as opened:
        found = score_validation(find_right(opened, shipped, 64, {"low": 32}, runtime, 64, lambda _: None))
    # Another engine than the one it was measured with rounds sums otherwise: some images may change.
    assert found["low"]["accuracy"] == pytest.approx(committed, abs=5e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_step_has_the_loss_and_the_gradients_of_one_run_plainly(data):
    device = torch.device("cuda")
    params = train_params(drop_path=0.0, small_until=0.5)
    moved = move_to(data, device)
    runs = [start_run(Start(STATIC), SIZES_PX, params, device) for _ in range(2)]
    captured = Trainer(moved, params, device)
    for step, progress in enumerate((0.0, 0.0, 1.0, 1.0)):
        batch = captured._draw_batch(step)
        runs[0].progress = progress
        found = captured._descend(batch, runs[0])
        sizes_px = captured._taking_part(runs[0])
        expected = backward(
            lambda b, now=sizes_px: captured._compute_loss(b, runs[1], now), batch, runs[1].model
        )
        torch.testing.assert_close(found, expected)
        for (name, mine), other in zip(
            runs[0].model.named_parameters(), runs[1].model.parameters(), strict=True
        ):
            torch.testing.assert_close(mine.grad, other.grad, msg=name)


def test_progress_names_no_loss_before_there_is_one():
    begun = Status(0.0, None, 100.0, 120.0, {})
    assert _describe(begun) == "100 images/s, 2 min left"
    later = begun._replace(loss=1.5, accuracy={"accuracy_32px": 0.25})
    assert _describe(later) == "loss 1.500, 100 images/s, 2 min left, held out: 32px 25.0 %"
