import argparse
import json
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer

from pipeline.architecture import ARCHITECTURES, LocalBlock
from pipeline.checkpoint import load_weights
from pipeline.errors import PipelineError
from pipeline.params.model import ModelParams
from pipeline.vit import TracedViT, at_size, draw_weights, own_name, without_own
from tests.made import canvases, weights


def reference(size_px):
    """timm's own model with the same weights, built without the project's code."""
    torch.manual_seed(0)
    shape = {"patch_size": 4, "embed_dim": 192, "depth": 12, "num_heads": 3, "num_classes": 200}
    native = VisionTransformer(img_size=64, **shape)
    state = native.state_dict()
    grid = size_px // 4
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [grid, grid], num_prefix_tokens=1)
    model = VisionTransformer(img_size=size_px, **shape).eval()
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("size_px", [32, 64])
@torch.inference_mode()
def test_the_pass_is_timms_own(size_px):
    images = canvases(3, size_px)
    model = reference(size_px)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = (images / 255 - mean) / std
    found = TracedViT(weights(), size_px)(images)
    torch.testing.assert_close(found.logits, model(pixels), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.embedding, model.forward_features(pixels)[:, 0], atol=1e-4, rtol=1e-4)
    steps = []
    hooks = [
        block.register_forward_hook(lambda _m, _i, out: steps.append(out[:, 0])) for block in model.blocks
    ]
    model(pixels)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found.trace[:, 1:], torch.stack(steps, 1), atol=1e-4, rtol=1e-4)
    first = model.cls_token[:, 0] + model.pos_embed[:, 0]
    torch.testing.assert_close(found.trace[:, 0], first.expand(3, -1), atol=1e-5, rtol=1e-4)


def test_a_local_block_is_timms_own_behind_a_convolution_of_the_patches():
    torch.manual_seed(0)
    local, plain = LocalBlock(12, 3), Block(12, 3, qkv_bias=True)
    state = local.state_dict()
    kernel, bias = state.pop("local.weight"), state.pop("local.bias")
    plain.load_state_dict(state)
    tokens = torch.randn(2, 1 + 4 * 4, 12)
    changed = tokens.clone()
    for row in range(4):
        for column in range(4):
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    y, x = row + down, column + right
                    if 0 <= y < 4 and 0 <= x < 4:
                        tap = kernel[:, 0, down + 1, right + 1]
                        changed[:, 1 + 4 * row + column] += tap * tokens[:, 1 + 4 * y + x]
    changed[:, 1:] += bias
    with torch.no_grad():
        torch.testing.assert_close(local(tokens), plain(changed))


def test_shapes():
    found = TracedViT(weights(), 32)(canvases(2, 32))
    assert [tuple(value.shape) for value in found] == [(2, 200), (2, 192), (2, 13, 192)]


def test_random_weights_follow_the_seed_and_leave_torchs_generator_alone():
    def draw(seed):
        return load_weights(ModelParams(name="static_vit", weights="random", seed=seed), 64).sha256

    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    assert draw(0) == draw(0) == weights().sha256
    assert draw(1) != draw(0)
    assert torch.equal(before, torch.random.get_rng_state())


def read_file(path):
    return load_weights(ModelParams(name="static_vit", weights=str(path), seed=0), 64)


def saved(path, state, **metadata):
    save_file({name: value.contiguous() for name, value in state.items()}, path, metadata)
    return read_file(path)


def test_a_file_of_the_same_numbers_is_the_same_model(tmp_path):
    read = saved(tmp_path / "w.safetensors", weights().state, classes=json.dumps(["n1", "n2"]))
    assert read.sha256 == weights().sha256
    assert read.classes == ("n1", "n2")
    assert weights().classes is None


def listed(path, text):
    path.write_bytes(text)
    model = ModelParams(name="static_vit", weights="random", seed=0, classes=str(path))
    return load_weights(model, 64)


def test_a_list_of_classes_goes_before_what_the_weights_say(tmp_path):
    others = tuple(map(str, range(197)))
    names = ("cats", "ch\u00e8vres", "dogs", *others)
    text = "\r\n".join(["\ufeffcats", "", " che\u0300vres ", "dogs", *others, ""]).encode()
    assert listed(tmp_path / "classes.txt", text).classes == names
    saved(tmp_path / "w.safetensors", weights().state, classes=json.dumps(["n1", "n2"]))
    model = {"name": "static_vit", "weights": str(tmp_path / "w.safetensors"), "seed": 0}
    read = load_weights(ModelParams(**model, classes=str(tmp_path / "classes.txt")), 64)
    assert (read.classes, read.sha256) == (names, weights().sha256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"cats\ndogs\ncats\n", "classes.txt names 'cats' 2 times; expected each once"),
        (
            b"\n",
            "classes.txt names 0 classes; expected each once, in the order of the logits, of which there",
        ),
        ("\n".join(map(str, range(201))).encode(), "names 201 classes"),
        ("\n".join(map(str, range(199))).encode(), "names 199 classes"),
        (b"\xff\xfe", "classes.txt is no text that can be read"),
    ],
)
def test_a_faulty_list_of_classes_is_named(tmp_path, text, message):
    with pytest.raises(PipelineError, match=message):
        listed(tmp_path / "classes.txt", text)


def test_a_classifier_of_one_logit_is_refused(tmp_path):
    """In it all images get the same answer."""
    drawn = draw_weights(replace(ARCHITECTURES["static_vit"], classes=1), 0, 64)
    save_file(dict(drawn.state), tmp_path / "one.safetensors")
    with pytest.raises(PipelineError, match="has a classifier of one logit, in which no answers can differ"):
        load_weights(ModelParams(name="static_vit", weights=str(tmp_path / "one.safetensors"), seed=0), 64)


def test_accents_of_class_names_are_composed(tmp_path):
    """As those of folders are."""
    drawn, apart = draw_weights(ARCHITECTURES["static_vit"], 0, 64), unicodedata.normalize("NFD", "chèvre")
    save_file(dict(drawn.state), tmp_path / "a.safetensors", {"classes": json.dumps([apart])})
    found = load_weights(ModelParams(name="static_vit", weights=str(tmp_path / "a.safetensors"), seed=0), 64)
    assert found.classes == (unicodedata.normalize("NFC", "chèvre"),)


RUN = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "arch": "vit"}


@pytest.mark.parametrize(
    "document",
    [
        lambda state, _: state,
        lambda state, _: {"model": state, "epoch": 3},
        lambda state, _: RUN | {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state, other: RUN | {"state_dict": other, "state_dict_ema": state},
    ],
)
def test_what_torch_saves_is_read_averaged_weights_first(tmp_path, document):
    state = weights().state
    torch.save(document(state, {name: value + 1 for name, value in state.items()}), tmp_path / "w.pth.tar")
    assert read_file(tmp_path / "w.pth.tar").sha256 == weights().sha256


class Code:
    """A pickle that would print if it were executed."""

    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("document", [Code(), [1, 2], {"state_dict": 5}, {"epoch": 3}])
def test_what_is_no_checkpoint_is_refused_and_not_executed(tmp_path, document, capsys):
    torch.save(document, tmp_path / "w.pth")
    with pytest.raises(PipelineError, match="w.pth"):
        read_file(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(b"PK no such thing")
    with pytest.raises(PipelineError, match="w.pth is no whole file of tensors as torch.save writes it"):
        read_file(tmp_path / "w.pth")
    assert "executed" not in capsys.readouterr().out


def test_half_precision_weights_are_read_as_float32(tmp_path):
    half = {name: value.half() for name, value in weights().state.items()}
    read = saved(tmp_path / "w.safetensors", half)
    assert {value.dtype for value in read.state.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.bias"), r"head.bias is missing, expected \(200,\)"),
        (lambda s: s.update({"extra": torch.zeros(1)}), r"extra is \(1,\), expected no such tensor"),
        (lambda s: s.update({"head.bias": torch.zeros(10)}), r"head.bias is \(10,\), expected \(200,\)"),
        (lambda s: s.update({"pos_embed": torch.zeros(1, 51, 192)}), r"pos_embed is \(1, 51, 192\)"),
        (lambda s: s.update({"pos_embed": torch.zeros(192)}), r"pos_embed is \(192,\)"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(tmp_path, change, message):
    state = dict(weights().state)
    change(state)
    with pytest.raises(PipelineError, match=message):
        saved(tmp_path / "w.safetensors", state)


def test_weights_of_another_network_are_told_apart_by_what_it_is(tmp_path):
    state = draw_weights(replace(weights().architecture, patch_px=8, width=96, depth=2), 0, 64).state
    with pytest.raises(PipelineError) as refused:
        saved(tmp_path / "w.safetensors", state)
    theirs = "patches of 8 px, width 96, depth 2, 0 registers"
    ours = "patches of 4 px, width 192, depth 12, 0 registers"
    assert f"the file's network has {theirs}, this one {ours}: set model.name" in str(refused.value)


def test_a_position_embedding_of_another_grid_is_resampled(tmp_path):
    state = dict(weights().state)
    state["pos_embed"] = torch.zeros(1, 1 + 49, 192)
    assert TracedViT(saved(tmp_path / "w.safetensors", state), 32).vit.pos_embed.shape == (1, 65, 192)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"model.weights: .*none.safetensors is no file"):
        load_weights(ModelParams(name="static_vit", weights=str(tmp_path / "none.safetensors"), seed=0), 64)
    (tmp_path / "bad.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(PipelineError, match="is no whole .safetensors file"):
        load_weights(ModelParams(name="static_vit", weights=str(tmp_path / "bad.safetensors"), seed=0), 64)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"classes": "not json"}, "says classes 'not json', which is no JSON"),
        ({"architecture": "{oops"}, "says architecture '{oops', which is no JSON"),
        ({"classes": json.dumps([f"n{index}" for index in range(201)])}, "200 at most"),
        ({"classes": json.dumps(["n1", "n1"])}, "a list of different wnids"),
        ({"classes": json.dumps({"n1": 0})}, "a list of different wnids"),
        ({"classes": json.dumps([1, 2])}, "a list of different wnids"),
    ],
)
def test_what_a_file_cannot_rightly_say_is_refused(tmp_path, said, message):
    with pytest.raises(PipelineError, match=message):
        saved(tmp_path / "w.safetensors", weights().state, **said)


def test_a_folder_is_no_file_of_weights(tmp_path):
    with pytest.raises(PipelineError, match="is no file that can be read"):
        load_weights(ModelParams(name="static_vit", weights=str(tmp_path), seed=0), 64)


def test_a_size_off_the_patch_grid_is_refused_with_the_nearest():
    with pytest.raises(PipelineError, match="33 px is no multiple .* 4; use 32 or 36"):
        TracedViT(weights(), 33)


def test_images_do_not_influence_each_other():
    images = canvases(4, 32)
    model = TracedViT(weights(), 32)
    together = model(images).embedding.numpy()
    alone = np.concatenate([model(image[None]).embedding.numpy() for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def with_own_head(size_px):
    own = {
        own_name("head.weight", size_px): torch.zeros(200, 192),
        own_name("head.bias", size_px): torch.arange(200.0),
    }
    return {**weights().state, **own}


def test_a_size_may_have_a_head_of_its_own_and_the_others_share_one(tmp_path):
    read = saved(tmp_path / "w.safetensors", with_own_head(32))
    small, large = canvases(2, 32), canvases(2, 64)
    assert torch.equal(TracedViT(read, 32)(small).logits, torch.arange(200.0).expand(2, -1))
    assert torch.equal(TracedViT(read, 64)(large).logits, TracedViT(weights(), 64)(large).logits)
    assert torch.equal(TracedViT(read, 32)(small).embedding, TracedViT(weights(), 32)(small).embedding)


def test_a_size_between_two_gets_their_mean_by_distance_and_one_beyond_that_of_the_nearest():
    own = {own_name("patch_embed.proj.weight", 32): torch.zeros(192, 3, 4, 4)}
    own |= {own_name("pos_embed", 32): torch.full((1, 65, 192), 8.0)}
    shared = {"patch_embed.proj.weight": torch.ones(192, 3, 4, 4), "pos_embed": torch.zeros(1, 257, 192)}
    state = {**weights().state, **shared, **own}
    for size_px, stem, position in (
        (28, 0.0, 8.0),
        (32, 0.0, 8.0),
        (40, 0.25, 6.0),
        (64, 1.0, 0.0),
        (72, 1.0, 0.0),
    ):
        found = at_size(state, size_px, 4)
        assert set(found["patch_embed.proj.weight"].unique().tolist()) == {stem}
        torch.testing.assert_close(
            found["pos_embed"], torch.full((1, (size_px // 4) ** 2 + 1, 192), position)
        )
        assert found.keys() == weights().state.keys()


def test_a_size_may_have_a_patch_embedding_of_its_own(tmp_path):
    own = {own_name("patch_embed.proj.weight", 32): torch.zeros(192, 3, 4, 4)}
    read = saved(tmp_path / "w.safetensors", {**weights().state, **own})
    small, large = canvases(2, 32), canvases(2, 64)
    blind = TracedViT(read, 32)(small).logits
    assert torch.equal(blind[0], blind[1])
    assert torch.equal(TracedViT(read, 64)(large).logits, TracedViT(weights(), 64)(large).logits)
    shared = without_own(read, {"patch_embed"})
    assert shared.sha256 == weights().sha256
    own = {own_name("patch_embed.proj.weight", 32): torch.zeros(192, 3, 8, 8)}
    with pytest.raises(PipelineError, match=r"patch_embed_32px.proj.weight is \(192, 3, 8, 8\), expected"):
        saved(tmp_path / "w.safetensors", {**weights().state, **own})


def test_half_a_head_is_refused(tmp_path):
    state = with_own_head(32)
    del state["head_32px.bias"]
    with pytest.raises(PipelineError, match=r"head_32px.bias is missing, expected \(200,\)"):
        saved(tmp_path / "w.safetensors", state)
