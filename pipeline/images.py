"""From the bytes of an image file to uint8 RGB tensors, and their antialiased resizing."""

import hashlib
import io
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional

from pipeline.errors import PipelineError

try:
    import simplejpeg
except ImportError:  # Machines for the GPU come with torch and little else; the pixels are the same without.
    simplejpeg = None

# WebP's own limit, 16,384 a side: 0.8 GB as RGB. A file of a few kB may claim a hundred times as many.
MOST_PIXELS = 2**28
_PNG = b"\x89PNG\r\n\x1a\n"
# How files begin that torchvision does not decode: BMP, TIFF of either byte order, BigTIFF, PGM, PPM.
_RARE = (b"BM", b"II*\0", b"MM\0*", b"II+\0", b"P2", b"P3", b"P5", b"P6")
_RARE_FORMATS = ("BMP", "TIFF", "PPM")
# 8,192 a side. Of these Pillow holds several copies, and a TIFF can claim thousands of times what it takes.
MOST_RARE_PIXELS = 2**26
_DEEP = 2**16


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

    Raises ValueError with the reason where the bytes are no whole image. EXIF rotation is applied to TIFF
    alone.
    """
    if not jpeg:
        raise ValueError("empty file")
    if (pixels := _count_claimed(jpeg)) > MOST_PIXELS:
        raise ValueError(f"{pixels} pixels, more than the limit of {MOST_PIXELS}")
    if jpeg.startswith(_RARE):
        return _decode_rare(jpeg)
    sound = _decode_sound_jpeg(jpeg)
    return _decode_other(jpeg) if sound is None else sound


def _count_claimed(content: bytes) -> int:
    """Pixels by the header of a JPEG or PNG, before anything is unpacked; 0 of what is neither."""
    if content.startswith(_PNG) and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return int(width * height)
    if simplejpeg is None or not simplejpeg.is_jpeg(content):
        return 0
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
    except ValueError:  # Damaged, which decoding will say.
        return 0
    return int(width * height)


def _decode_sound_jpeg(jpeg: bytes) -> Tensor | None:
    """torchvision's pixels, in less time; None for another format or colour space, or damage."""
    if simplejpeg is None:
        return None
    try:
        return torch.from_numpy(simplejpeg.decode_jpeg(jpeg)).permute(2, 0, 1)
    except ValueError:
        return None


def _decode_other(content: bytes) -> Tensor:
    try:
        encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        pixels: Tensor = decode_image(encoded, mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise ValueError(_short_reason(error)) from None
    if pixels.ndim != 3:
        raise ValueError(f"an animation of {pixels.shape[0]} frames, expected one image")
    if pixels.dtype == torch.uint16:
        # 65535 = 255 * 257: rounding by 257 keeps black and white exact, which a shift by 8 bits does not.
        pixels = ((pixels.to(torch.int32) + 128) // 257).to(torch.uint8)
    return pixels


def _decode_rare(content: bytes) -> Tensor:
    try:
        with Image.open(io.BytesIO(content), formats=_RARE_FORMATS) as image:
            if (count := image.width * image.height) > MOST_RARE_PIXELS:
                raise ValueError(f"{count} pixels, more than the limit of {MOST_RARE_PIXELS}")
            if getattr(image, "is_animated", False):
                raise ValueError("several pages, expected one image")
            pixels = np.array(image if image.mode.startswith(("I", "F", "RGB")) else image.convert("RGB"))
            if pixels.ndim == 2:
                pixels = np.stack([_scale_deep(pixels, image.mode)] * 3, axis=2)
    except Exception as error:  # Of damaged files Pillow's readers raise whatever comes up in them.
        raise ValueError(str(error) or type(error).__name__) from None
    return torch.from_numpy(pixels[..., :3]).permute(2, 0, 1)


def _scale_deep(levels: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    """Grey levels of 16 bits to 8, as those of a PNG."""
    if mode == "F" or levels.min() < 0 or levels.max() >= _DEEP:
        raise ValueError(f"pixels of Pillow's mode {mode}, expected 8 or 16 bits for each")
    return ((levels.astype(np.int32) + 128) // 257).astype(np.uint8)


def resize(images: Tensor, size_px: int) -> Tensor:
    """(..., 3, H, W) uint8 to (..., 3, size_px, size_px), bilinear, antialiased; itself where it fits."""
    if tuple(images.shape[-2:]) == (size_px, size_px):
        return images
    resized: Tensor = functional.resize(images, [size_px, size_px], antialias=True)
    return resized


def decode_canvas(jpeg: bytes, size_px: int) -> Tensor:
    """(3, size_px, size_px) uint8: decoded, the centre square cut out, then resized. Raises as decode_rgb."""
    return resize(_crop_square(decode_rgb(jpeg)), size_px)


def decode_stored(image_id: str, jpeg: bytes, canvas_px: int) -> Tensor:
    """decode_canvas of a row of the images table, whose images were whole when they were put there."""
    try:
        return decode_canvas(jpeg, canvas_px)
    except (RuntimeError, ValueError) as error:
        raise PipelineError(f"{image_id}: cannot be decoded ({error}); run prepare again") from None


def stack_canvases(canvases: Sequence[Tensor]) -> Tensor:
    """(N, 3, S, S). Not torch.stack, which wakes threads that then keep an engine's from their cores."""
    stacked = torch.empty(len(canvases), *canvases[0].shape, dtype=torch.uint8)
    for row, canvas in enumerate(canvases):
        stacked[row] = canvas
    return stacked


def make_room(count: int, size_px: int, remedy: str) -> Tensor:
    """(count, 3, size_px, size_px) uint8, to be filled; raises PipelineError where memory is short."""
    try:
        return torch.empty(count, 3, size_px, size_px, dtype=torch.uint8)
    except (RuntimeError, MemoryError) as error:
        found = f"{count:,} images of {size_px} px take {3e-9 * count * size_px**2:,.1f} GB"
        raise PipelineError(f"{found}, for which there is no memory; {remedy}") from error


def digest_content(pixels: Tensor) -> bytes:
    """SHA-256 of shape and pixels: the same for every file that shows the same."""
    digest = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    digest.update(pixels.numpy().tobytes())
    return digest.digest()
