"""A patch embedding for each image size, under which whole images look as sharp as those of training did.

Training enlarges its random crops, which blurs them; whole images, as the pipeline reads them, are sharper
than most of what the network ever saw. (That crops make training and test unlike: FixRes, Touvron et al.
2019.) A blur beforehand would cost time in every pass. Here it goes into the weights: a linear map of a
patch's sharp pixels to its blurred ones, by least squares over training images, then the patch embedding.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional

from pipeline.images import resize
from pipeline.vit import Weights, own_name

_NAME = "patch_embed.proj.weight"
# More than enough for a map of as many unknowns as a patch has pixels, squared.
_IMAGES = 8192
# Images of 64 px; of larger ones as many as take the same room.
_BATCH = 512
# Share of the mean variance that holds the map to "as it is" where the images leave it open.
_RIDGE = 1e-6


def fit_stems(weights: Weights, pixels: Tensor, sizes_px: Iterable[int], blur_px: float) -> dict[str, Tensor]:
    """On the CPU, by the names of a `Weights.state`.

    pixels (N, 3, S, S) uint8: training images as they are. blur_px: standard deviation of a Gaussian, in
    pixels of theirs.
    """
    chosen = pixels[:: -(-len(pixels) // _IMAGES)]
    return {own_name(_NAME, size_px): fit_stem(weights, chosen, size_px, blur_px) for size_px in sizes_px}


def fit_stem(weights: Weights, pixels: Tensor, size_px: int, blur_px: float) -> Tensor:
    """The patch embedding's weight (D, 3, P, P) for images of a size."""
    patch_px = weights.architecture.patch_px
    count = 3 * patch_px**2
    squares, products = (torch.zeros(count, count, dtype=torch.float64) for _ in range(2))
    for part in pixels.split(max(1, _BATCH * 64**2 // max(pixels.shape[-1], size_px) ** 2)):
        sharp, blurred = (_to_patches(images, weights, size_px) for images in (part, _blur(part, blur_px)))
        squares += (sharp.T @ sharp).cpu()
        products += (sharp.T @ blurred).cpu()
    ridge = _RIDGE * squares.trace() / count * torch.eye(count, dtype=torch.float64)
    to_blurred = torch.linalg.solve(squares + ridge, products + ridge)
    shared = weights.state[_NAME]
    stem: Tensor = shared.double().cpu().flatten(1) @ to_blurred.T
    return stem.to(shared.dtype).view_as(shared)


def _blur(pixels: Tensor, blur_px: float) -> Tensor:
    reach = max(1, round(4 * blur_px))
    blurred: Tensor = functional.gaussian_blur(pixels, [2 * reach + 1] * 2, [blur_px] * 2)
    return blurred


def _to_patches(pixels: Tensor, weights: Weights, size_px: int) -> Tensor:
    """All patches (N, 3 P P), normalised, in the order of the weight's inputs."""
    mean, std = (
        torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) * 255 for values in weights.normalisation
    )
    images = (resize(pixels, size_px) - mean) / std
    patches = F.unfold(images, weights.architecture.patch_px, stride=weights.architecture.patch_px)
    return patches.transpose(1, 2).flatten(0, 1).double()
