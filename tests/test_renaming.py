"""Weights of transformers, by hand: the names that it saves, and what timm calls them."""

import re

import pytest
import torch

from pipeline.checkpoint import load_weights
from pipeline.errors import PipelineError
from pipeline.params.model import ModelParams
from pipeline.renaming import rename_state
from tests.made import weights

SAVED = {
    r"cls_token": "vit.embeddings.cls_token",
    r"pos_embed": "vit.embeddings.position_embeddings",
    r"patch_embed\.proj\.(\w+)": r"vit.embeddings.patch_embeddings.projection.\1",
    r"blocks\.(\d+)\.norm1\.(\w+)": r"vit.encoder.layer.\1.layernorm_before.\2",
    r"blocks\.(\d+)\.norm2\.(\w+)": r"vit.encoder.layer.\1.layernorm_after.\2",
    r"blocks\.(\d+)\.attn\.proj\.(\w+)": r"vit.encoder.layer.\1.attention.output.dense.\2",
    r"blocks\.(\d+)\.mlp\.fc1\.(\w+)": r"vit.encoder.layer.\1.intermediate.dense.\2",
    r"blocks\.(\d+)\.mlp\.fc2\.(\w+)": r"vit.encoder.layer.\1.output.dense.\2",
    r"norm\.(\w+)": r"vit.layernorm.\1",
    r"head\.(\w+)": r"classifier.\1",
}


def as_transformers_saves(state):
    saved = {}
    for name, value in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name):
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                saved[f"vit.encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"] = rows
            continue
        (pattern,) = (pattern for pattern in SAVED if re.fullmatch(pattern, name))
        saved[re.sub(pattern, SAVED[pattern], name)] = value
    return saved


def test_a_model_of_transformers_is_the_same_under_timms_names(tmp_path):
    torch.save(as_transformers_saves(weights().state), tmp_path / "pytorch_model.bin")
    model = ModelParams(name="static_vit", weights=str(tmp_path / "pytorch_model.bin"), seed=0)
    assert load_weights(model, 64).sha256 == weights().sha256


def test_a_network_inside_another_module_is_the_same(tmp_path):
    state = {f"net.model.{name}": value for name, value in weights().state.items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "lightning.pth")
    model = ModelParams(name="static_vit", weights=str(tmp_path / "lightning.pth"), seed=0)
    assert load_weights(model, 64).sha256 == weights().sha256


def test_timms_names_stay():
    assert rename_state(weights().state).keys() == weights().state.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("vit.encoder.layer.3.attention.attention.key.bias"), "blocks.3.attention"),
        (lambda saved: saved.update({"vit.pooler.dense.bias": torch.zeros(192)}), "pooler.dense.bias"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    saved = as_transformers_saves(weights().state)
    change(saved)
    torch.save(saved, tmp_path / "w.bin")
    with pytest.raises(PipelineError, match=message):
        load_weights(ModelParams(name="static_vit", weights=str(tmp_path / "w.bin"), seed=0), 64)
