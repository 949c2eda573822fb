"""Models of timm's, taken by their names."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional

from pipeline.checkpoint import load_weights
from pipeline.engines.base import describe_transform
from pipeline.errors import PipelineError
from pipeline.fused import FusedViT
from pipeline.params.model import ModelParams
from pipeline.training.model import TrainableViT
from pipeline.training.publish import write_weights
from pipeline.training.start import read_start
from pipeline.vit import TracedViT, Weights
from pipeline.zoo import IMAGENET, Normalisation, find_network

NAME = "vit_tiny_patch16_224"
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def load(path, name=NAME):
    return load_weights(ModelParams(name=name, weights=str(path), seed=0), 224)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=7).eval()


def test_a_model_of_timms_answers_as_timm_does(model, tmp_path):
    """Its weights as timm's hub has them, its classes the file's, its normalisation that of the name."""
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    found = TracedViT(load(tmp_path / "w.safetensors"), 224)(images).logits
    torch.testing.assert_close(found, model(images.float() / 127.5 - 1), atol=1e-4, rtol=1e-4)
    assert found.shape == (2, 7)


@pytest.mark.parametrize(
    "name",
    [
        "deit3_small_patch16_224",  # Layer scale, and a class token without position.
        "vit_xsmall_patch16_clip_224",  # A norm before the blocks.
        "vit_base_patch32_clip_quickgelu_224",
        "vit_small_patch14_reg4_dinov2",
    ],
)
def test_what_a_plain_vit_does_not_have_is_computed_as_timm_does(tmp_path, name):
    """With what starts as next to nothing drawn: norms, layer scale, registers."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7, img_size=224).eval()
    for part, value in model.named_parameters():
        if "norm" in part or part.endswith("gamma") or part in ("reg_token", "head.bias"):
            torch.nn.init.uniform_(value, 0.5, 1.5)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    weights = load(tmp_path / "w.safetensors", name)
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in weights.normalisation)
    expected = model((images / 255 - mean) / std)
    shape, small_px = weights.architecture, 4 * weights.architecture.patch_px
    trainable = TrainableViT(shape, [small_px, 224], 0.0, normalisation=weights.normalisation).eval()
    trainable.load_state(weights.state, with_head=True)
    ours = TracedViT(weights, 224)(images).logits, FusedViT(weights, 224, None)(images)[0], trainable(images)
    for found in ours:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    other = replace(weights, architecture=replace(shape, epsilon=1e-2))
    assert not torch.allclose(TracedViT(other, 224)(images).logits, expected, atol=1e-3)
    small = functional.resize(images, [small_px, small_px], antialias=True)
    expected = trainable(small)
    for state in (weights.state, trainable.to_state()):
        found = TracedViT(replace(weights, state=state), small_px)(small).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_registers_go_through_training_and_metas_own_layout(tmp_path):
    """Beside registers the class token has no position of its own; Meta's files keep one."""
    name = "vit_small_patch14_reg4_dinov2"
    shape = replace(find_network(name).architecture, classes=5)
    trained = TrainableViT(shape, [28, 56], 0.0).to_state()
    write_weights(tmp_path / "own.safetensors", Weights(shape, trained, None, ""), list("abcde"), {})
    read = load(tmp_path / "own.safetensors", name)
    assert read.state["pos_embed_28px"].shape == (1, 4, 384)
    assert read.architecture == shape
    class_position = torch.randn(1, 1, 384)
    theirs = {key: value for key, value in trained.items() if key != "reg_token" and "px" not in key}
    theirs["register_tokens"] = trained["reg_token"]
    theirs["cls_token"] = trained["cls_token"] - class_position
    theirs["pos_embed"] = torch.cat([class_position, trained["pos_embed"]], dim=1)
    save_file(theirs, tmp_path / "meta.safetensors")
    state = load(tmp_path / "meta.safetensors", name).state
    assert state.keys() == {key for key in trained if "px" not in key}
    torch.testing.assert_close(state["cls_token"], trained["cls_token"])
    assert torch.equal(state["pos_embed"], trained["pos_embed"])


def test_weights_without_a_classifier_serve_for_training_alone(tmp_path):
    """Such as DINOv2's, of which what hid patches in pretraining is left out, too."""
    torch.manual_seed(0)
    name, path = "vit_small_patch14_dinov2.lvd142m", tmp_path / "w.safetensors"
    state = timm.create_model(name, img_size=28).state_dict()
    save_file({**state, "mask_token": torch.zeros(1, 384)}, path)
    with pytest.raises(PipelineError, match=r"no classifier \(head.weight\).* --set start=.*w.safetensors"):
        load(path, name)
    with pytest.raises(PipelineError, match="random has no classifier"):
        load("random", name)
    with_head = {**state, "head.weight": torch.zeros(5, 384), "head.bias": torch.zeros(5)}
    save_file(with_head, tmp_path / "tuned.safetensors")
    assert load(tmp_path / "tuned.safetensors", name).architecture.classes == 5
    start = read_start(ModelParams(name=name, weights="random", seed=0), str(path), 28, ["a", "b"])
    assert (start.architecture.classes, start.with_head) == (2, False)
    model = TrainableViT(start.architecture, [28], 0.0)
    model.load_state(start.weights.state, start.with_head)
    assert model.vit.head.weight.shape == (2, 384)
    assert torch.equal(model.vit.pos_embed, state["pos_embed"])
    random = read_start(ModelParams(name=name, weights="random", seed=0), "random", 28, ["a", "b", "c"])
    assert random.architecture.classes == 3


def test_clips_projection_is_no_classifier(tmp_path):
    """Which timm keeps in its place, without a bias."""
    torch.manual_seed(0)
    name, path = "vit_xsmall_patch16_clip_224", tmp_path / "w.safetensors"
    state = timm.create_model(name).state_dict()
    assert not state["head.bias"].any()
    save_file(state, path)
    with pytest.raises(PipelineError, match="CLIP's projection in place of a classifier; train one"):
        load(path, name)
    (tmp_path / "classes.txt").write_text("".join(f"c{i}\n" for i in range(len(state["head.bias"]))))
    listed = ModelParams(name=name, weights=str(path), seed=0, classes=str(tmp_path / "classes.txt"))
    assert load_weights(listed, 224).classes[:2] == ("c0", "c1")
    save_file({**state, "head.bias": torch.ones_like(state["head.bias"])}, path)
    assert load(path, name).architecture.classes == len(state["head.bias"])
    assert load("random", name).architecture.classes == len(state["head.bias"])


def test_another_gelu_makes_other_weights_of_the_same_numbers(tmp_path):
    torch.manual_seed(0)
    name, path = "vit_base_patch32_clip_224", tmp_path / "w.safetensors"
    state = timm.create_model(name, num_classes=3, img_size=64).state_dict()
    save_file({**state, "head.bias": torch.ones(3)}, path, {"normalisation": json.dumps(HALF._asdict())})
    plain, quick = (load(path, each) for each in (name, name.replace("_clip_", "_clip_quickgelu_")))
    assert plain.sha256 != quick.sha256


def test_where_weights_of_a_name_are_normalised_in_different_ways_the_tag_is_asked_for(tmp_path):
    torch.manual_seed(0)
    name, path = "vit_small_patch16_224", tmp_path / "w.safetensors"
    state = timm.create_model(name, num_classes=2).state_dict()
    save_file(state, path)
    with pytest.raises(
        PipelineError, match="does not say how its images are normalised.*vit_small_patch16_224.augreg"
    ):
        load(path, name)
    assert load(path, f"{name}.augreg_in21k_ft_in1k").normalisation == HALF
    save_file(state, path, {"normalisation": json.dumps(HALF._asdict())})
    assert load(path, name).normalisation == HALF
    assert load("random", name).architecture.width == 384


def test_a_network_of_our_own_that_timm_has_too_is_as_ambiguous():
    assert find_network("vit_base_patch16").others == find_network("vit_base_patch16_224").others != ()


def test_deit_iii_is_read_as_meta_has_it(tmp_path):
    torch.manual_seed(0)
    name = "deit3_small_patch16_224.fb_in1k"
    state = timm.create_model(name, num_classes=3).state_dict()
    save_file(state, tmp_path / "timm.safetensors")
    metas = {
        key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value
        for key, value in state.items()
    }
    assert "blocks.11.gamma_2" in metas
    torch.save({"model": metas}, tmp_path / "meta.pth")
    assert load(tmp_path / "meta.pth", name).sha256 == load(tmp_path / "timm.safetensors", name).sha256


def test_a_tag_says_what_the_classes_are(tmp_path):
    tagged = find_network("deit_tiny_patch16_224.fb_in1k")
    assert len(tagged.classes) == 1000
    assert tagged.classes[0] == "n01440764"
    assert tagged.normalisation == IMAGENET
    assert find_network(NAME).classes is None


def test_other_classes_than_the_tags_are_not_taken_for_them(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert load(tmp_path / "w.safetensors", f"{NAME}.augreg_in21k_ft_in1k").classes is None


def test_what_a_file_says_of_its_pixels_goes_before_its_name(model, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(model.state_dict(), path)
    assert load(path).normalisation == HALF
    said = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3]}
    save_file(model.state_dict(), path, {"normalisation": json.dumps(said)})
    assert load(path).normalisation == Normalisation((0.4, 0.5, 0.6), (0.2, 0.2, 0.3))


@pytest.mark.parametrize("said", [{"mean": [0.5]}, {"mean": [0.5] * 3, "std": [0.0, 1.0, 1.0]}])
def test_a_normalisation_that_is_none_is_refused(model, tmp_path, said):
    save_file(model.state_dict(), tmp_path / "w.safetensors", {"normalisation": json.dumps(said)})
    with pytest.raises(PipelineError, match="three numbers each, std above 0"):
        load(tmp_path / "w.safetensors")


def test_another_normalisation_is_another_transform():
    assert describe_transform(IMAGENET).endswith("then ImageNet mean and std")
    assert describe_transform(HALF) != describe_transform(IMAGENET)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deit_tiny_patch16_223", "did you mean deit_tiny_patch16_224"),
        ("deit_tiny_patch16_224.mine", "no weights 'mine' of deit_tiny_patch16_224; it has fb_in1k"),
        ("nothing at all", "use a name of timm's"),
        ("vit_base_patch16_224_sam", "an old name of timm's; use vit_base_patch16_224$"),
        ("vit_base_patch16_224_in21k", "an old name of timm's; use vit_base_patch16_224.augreg_in21k"),
        ("resnet18", "it is no VisionTransformer of timm's"),
        ("vit_medium_patch16_gap_256", "where a plain one has"),
        ("vit_base_patch16_clip_224.openai", "use vit_base_patch16_clip_quickgelu_224.openai"),
        ("vit_large_patch16_siglip_256", "where a plain one has"),
        ("vit_small_patch16_18x2_224", "its blocks are ParallelThingsBlock"),
    ],
)
def test_what_is_no_plain_vit_is_refused_with_the_reason(name, message):
    with pytest.raises(PipelineError, match=message):
        find_network(name)
