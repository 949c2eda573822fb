"""From JPEG bytes to uint8 RGB tensors, and their antialiased resizing."""

import hashlib
import re

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional


def _short_reason(error: RuntimeError) -> str:
    """torchvision's message without the place in its C++ source."""
    first_line = (str(error).splitlines() or ["cannot be decoded"])[0]
    return re.sub(r"^.*?\.cpp:\d+, ", "", first_line)


def _crop_square(image: Tensor) -> Tensor:
    if image.shape[-2] == image.shape[-1]:
        return image
    side_px = min(image.shape[-2:])
    square: Tensor = functional.center_crop(image, [side_px, side_px])
    return square


def decode_rgb(jpeg: bytes) -> Tensor:
    """(3, H, W) uint8, RGB; greyscale becomes three equal channels, CMYK and 16 bit are converted.

    Raises ValueError with the reason where the bytes are no whole image. EXIF rotation is not applied.
    """
    if not jpeg:
        raise ValueError("empty file")
    try:
        encoded = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
        pixels: Tensor = decode_image(encoded, mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise ValueError(_short_reason(error)) from None
    if pixels.ndim != 3:
        raise ValueError(f"an animation of {pixels.shape[0]} frames, expected one image")
    if pixels.dtype == torch.uint16:
        # 65535 = 255 * 257: rounding by 257 keeps black and white exact, which a shift by 8 bits does not.
        pixels = ((pixels.to(torch.int32) + 128) // 257).to(torch.uint8)
    return pixels


def resize(images: Tensor, size_px: int) -> Tensor:
    """(..., 3, H, W) uint8 to (..., 3, size_px, size_px), bilinear, antialiased; itself where it fits."""
    if tuple(images.shape[-2:]) == (size_px, size_px):
        return images
    resized: Tensor = functional.resize(images, [size_px, size_px], antialias=True)
    return resized


def decode_canvas(jpeg: bytes, size_px: int) -> Tensor:
    """(3, size_px, size_px) uint8: decoded, the centre square cut out, then resized. Raises as decode_rgb."""
    return resize(_crop_square(decode_rgb(jpeg)), size_px)


def digest_content(pixels: Tensor) -> bytes:
    """SHA-256 of shape and pixels: the same for every file that shows the same."""
    digest = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    digest.update(pixels.numpy().tobytes())
    return digest.digest()
