"""Augmentation of a whole batch on its device; every draw comes from the generator that is passed in."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_ASPECT = 4 / 3
_MOST_ERASED = 0.3
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class Mixed(NamedTuple):
    """images (B, 3, S, S); of image i a share `share[i]` shows `labels[i]`, the rest `others[i]`."""

    images: Tensor
    labels: Tensor
    others: Tensor
    share: Tensor


def crop_and_flip(pixels: Tensor, least_area: float, generator: Generator) -> Tensor:
    """uint8 (B, 3, S, S) to float (B, 3, S, S) of 0..255: a part of each image, some of them mirrored.

    The part's area is uniform from `least_area` to 1, its aspect ratio log-uniform from 3/4 to 4/3, or as
    far as it fits ("random resized crop", Szegedy et al. 2015).
    """
    draws = torch.rand(5, len(pixels), generator=generator, device=pixels.device)
    area = least_area + (1 - least_area) * draws[0]
    # A large part can be stretched by little, or it would be cut off.
    aspect = torch.minimum(1 / area, torch.full_like(area, _ASPECT)) ** (2 * draws[1] - 1)
    width, height = (area * aspect).sqrt(), (area / aspect).sqrt()
    left, top = (2 * draws[2:4] - 1) * (1 - torch.stack([width, height]))
    mirrored = torch.where(draws[4] < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(width)
    rows = torch.stack(
        [torch.stack([width * mirrored, zero, left], 1), torch.stack([zero, height, top], 1)], dim=1
    )
    grid = F.affine_grid(rows, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, padding_mode="reflection", align_corners=False)


def three_augment(images: Tensor, chance: float, generator: Generator) -> Tensor:
    """3-Augment (Touvron et al. 2022): with probability `chance` one of greyscale, solarised and blurred.

    The blur is a binomial one of 5 pixels, of which every image gets a share drawn uniformly.
    """
    draws = torch.rand(3, len(images), 1, 1, 1, generator=generator, device=images.device)
    kind = torch.where(draws[0] < chance, (3 * draws[1]).floor(), -1.0)
    changed = torch.where(kind == 0, _to_grey(images), images)
    changed = torch.where((kind == 1) & (images >= 128), 255 - images, changed)
    return torch.where(kind == 2, images + draws[2] * (_blur(images) - images), changed)


def jitter_colors(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Brightness, contrast and saturation of each image times factors uniform in 1 +- `strength`."""
    draws = torch.rand(3, len(images), 1, 1, 1, generator=generator, device=images.device)
    brightness, contrast, saturation = 1 + strength * (2 * draws - 1)
    images = images * brightness
    images = images + (contrast - 1) * (images - images.mean(dim=(1, 2, 3), keepdim=True))
    images = images + (saturation - 1) * (images - _to_grey(images))
    return images.clamp(0, 255)


def mix(images: Tensor, labels: Tensor, cutmix: float, mixup: float, generator: Generator) -> Mixed:
    """Mix images with others of the batch, by one of two ways or not at all; the share is uniform in 0 to 1.

    With probability `cutmix` a square shows the other image (CutMix, Yun et al. 2019), with probability
    `mixup` it shines through everywhere (Mixup, Zhang et al. 2018).
    """
    way, share = torch.rand(2, len(images), generator=generator, device=images.device)
    cut = torch.where(way < cutmix, share, 0.0)
    inside = _rectangles(cut, images.shape[-1], generator).float()
    blended = torch.where((way >= cutmix) & (way < cutmix + mixup), share, 0.0)
    other = inside + blended[:, None, None, None]
    mixed = images + other * (images.roll(1, dims=0) - images)
    return Mixed(mixed, labels, labels.roll(1), 1 - other.mean(dim=(1, 2, 3)))


def erase(images: Tensor, chance: float, fill: Tensor, generator: Generator) -> Tensor:
    """Random erasing (Zhong et al. 2017): with probability `chance` a rectangle becomes `fill`."""
    draws = torch.rand(2, len(images), generator=generator, device=images.device)
    area = torch.where(draws[0] < chance, draws[1] * _MOST_ERASED, 0.0)
    return torch.where(_rectangles(area, images.shape[-1], generator), fill, images)


def _rectangles(area: Tensor, size_px: int, generator: Generator) -> Tensor:
    """(B,) shares of the image's area to masks (B, 1, S, S) of squares, cut off at the border."""
    centre = torch.rand(2, len(area), generator=generator, device=area.device) * size_px
    half = area.sqrt() * size_px / 2
    at = torch.arange(size_px, device=area.device) + 0.5
    inside = [(at - c[:, None]).abs() < half[:, None] for c in centre]  # B, S
    mask: Tensor = inside[0][:, :, None] & inside[1][:, None, :]
    return mask[:, None]


def _to_grey(images: Tensor) -> Tensor:
    """(B, 1, S, S), by ITU-R 601's weights."""
    red, green, blue = images.unbind(dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def _blur(images: Tensor) -> Tensor:
    taps = torch.tensor(_BINOMIAL, device=images.device)
    for kernel in (taps.view(1, 1, 1, -1), taps.view(1, 1, -1, 1)):
        images = F.conv2d(images, kernel.expand(3, -1, -1, -1), padding="same", groups=3)
    return images
