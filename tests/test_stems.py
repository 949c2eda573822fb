import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional

from pipeline.images import resize
from pipeline.training.model import TrainableViT
from pipeline.training.stems import fit_stem, fit_stems
from tests.made import SHAPE, canvases, weights

NAME = "patch_embed.proj.weight"


def embed(pixels, stem):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in weights().normalisation)
    return F.conv2d((pixels - mean) / std, stem, stride=4)


def textures(count, seed=0):
    """Images whose neighbouring pixels are alike, as those of photographs are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 24, 24, generator=generator) * 255
    noise = torch.randn(count, 3, 64, 64, generator=generator) * 12
    smooth = F.interpolate(coarse, size=64, mode="bicubic")
    return (smooth + noise).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("size_px", [32, 64])
def test_sharp_images_look_blurred_through_it(size_px):
    stem = fit_stem(weights(), textures(64), size_px, 0.7)
    unseen = textures(16, seed=1)
    blurred = functional.gaussian_blur(unseen, [7, 7], [0.7, 0.7])
    wanted = embed(resize(blurred, size_px), weights().state[NAME])
    errors = [
        float((embed(resize(unseen, size_px), each) - wanted).square().mean())
        for each in (stem, weights().state[NAME])
    ]
    assert errors[0] < 0.35 * errors[1]


def test_images_without_edges_leave_it_as_it_was():
    flat = torch.full((4, 3, 64, 64), 90, dtype=torch.uint8)
    torch.testing.assert_close(fit_stem(weights(), flat, 64, 0.5), weights().state[NAME])


def test_every_size_gets_one_by_its_name():
    found = fit_stems(weights(), canvases(8), [32, 64], 0.5)
    assert set(found) == {"patch_embed_32px.proj.weight", "patch_embed_64px.proj.weight"}
    assert {value.shape for value in found.values()} == {weights().state[NAME].shape}


def test_training_that_goes_on_takes_the_one_for_crops():
    state = {**weights().state, **fit_stems(weights(), canvases(8), [32, 64], 1.0)}
    model = TrainableViT(SHAPE, [32, 64], 0.0)
    model.load_state(state, with_head=True)
    assert torch.equal(model.vit.patch_embed.proj.weight, weights().state[NAME])
