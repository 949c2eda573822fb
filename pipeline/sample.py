"""The built-in sample: gratings drawn from a seed, in the Tiny ImageNet layout.

Half of the classes are coarse gratings, which survive downsampling from 64 to 32 px. The other half
are fine ones whose finer axis lies just under one cycle in two pixels, where the antialiasing
filter of a halving has its zero: they keep less than a hundredth of their contrast. So for every
image it is known whether high resolution matters.
"""

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.io import encode_jpeg

from pipeline.files import whole_file
from pipeline.members import new_member

ROOT = "tiny-imagenet-200"
SIZE_PX = 64
SEED = 20_240_601
CLASSES = 200
COARSE_PERIODS_PX = (10.0, 12.0, 14.5, 18.0, 24.0)
COARSE_ORIENTATIONS = 20
FINE_CYCLES_PER_PX = 0.485
AMPLITUDE = 40.0
FADE_PX = 8
NOISE_STD = 4.0
VAL_PER_CLASS = 22
TRAIN_PER_CLASS = 4
TEST_IMAGES = 8
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Grating:
    """One class; the angle is that of the wave's direction, counted from the x axis."""

    wnid: str
    fine: bool
    angle_degrees: float
    period_px: float

    @property
    def words(self) -> str:
        kind = "fine" if self.fine else "coarse"
        return f"{kind} grating, {self.angle_degrees:.3g} degrees, period {self.period_px:.3g} px"


def list_classes() -> tuple[Grating, ...]:
    """All classes, sorted by wnid: the coarse half, then the fine half."""
    half = CLASSES // 2
    gratings = []
    for index in range(half):
        orientation, period = index % COARSE_ORIENTATIONS, COARSE_PERIODS_PX[index // COARSE_ORIENTATIONS]
        angle = 180.0 * orientation / COARSE_ORIENTATIONS
        gratings.append(Grating(f"n{90_000_000 + index}", False, angle, period))
    for index in range(half):
        angle = 180.0 * index / half
        finer_axis = max(abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle))))
        period = finer_axis / FINE_CYCLES_PER_PX
        gratings.append(Grating(f"n{90_000_000 + half + index}", True, angle, period))
    return tuple(gratings)


def _fade() -> NDArray[np.float64]:
    """(64, 64), 0 at the border: the antialiasing filter, cut off there, would let fine waves through."""
    ramp = np.sin(np.pi / 2 * np.minimum((np.arange(SIZE_PX) + 0.5) / FADE_PX, 1)) ** 2
    along_one_axis = np.minimum(ramp, ramp[::-1])
    return np.outer(along_one_axis, along_one_axis)


def draw_images(grating: Grating, count: int, seed: int) -> NDArray[np.uint8]:
    """(count, 3, 64, 64) RGB: random phase, random mean colour (the same for all classes) and mild noise.

    The wave and the noise are luminance only, so that JPEG's colour subsampling cannot touch them.
    """
    rng = np.random.default_rng([seed, int(grating.wnid[1:])])
    angle = math.radians(grating.angle_degrees)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float64)
    along = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / grating.period_px)
    phase = rng.uniform(0, 2 * math.pi, (count, 1, 1))
    noise = rng.normal(0, NOISE_STD, (count, SIZE_PX, SIZE_PX))
    colour = rng.uniform(80, 175, (count, 3, 1, 1))
    luminance = AMPLITUDE * _fade() * np.cos(along + phase) + noise
    pixels: NDArray[np.uint8] = np.clip(np.rint(colour + luminance[:, None]), 0, 255).astype(np.uint8)
    return pixels


def _encode(image: NDArray[np.uint8]) -> bytes:
    encoded: bytes = encode_jpeg(torch.from_numpy(image), JPEG_QUALITY).numpy().tobytes()
    return encoded


def _list_texts(gratings: tuple[Grating, ...]) -> Iterator[tuple[str, bytes]]:
    box = f"0\t0\t{SIZE_PX - 1}\t{SIZE_PX - 1}\n"
    val = [f"val_{i}.JPEG\t{gratings[i % CLASSES].wnid}\t{box}" for i in range(VAL_PER_CLASS * CLASSES)]
    yield "wnids.txt", "".join(f"{grating.wnid}\n" for grating in gratings).encode()
    yield "words.txt", "".join(f"{grating.wnid}\t{grating.words}\n" for grating in gratings).encode()
    yield "val/val_annotations.txt", "".join(val).encode()
    for wnid in (grating.wnid for grating in gratings):
        boxes = "".join(f"{wnid}_{i}.JPEG\t{box}" for i in range(TRAIN_PER_CLASS))
        yield f"train/{wnid}/{wnid}_boxes.txt", boxes.encode()


def _list_images(gratings: tuple[Grating, ...], seed: int) -> Iterator[tuple[str, bytes]]:
    for index, grating in enumerate(gratings):
        images = draw_images(grating, VAL_PER_CLASS + TRAIN_PER_CLASS + 1, seed)
        for i, image in enumerate(images[:VAL_PER_CLASS]):
            yield f"val/images/val_{i * CLASSES + index}.JPEG", _encode(image)
        for i, image in enumerate(images[VAL_PER_CLASS:-1]):
            yield f"train/{grating.wnid}/images/{grating.wnid}_{i}.JPEG", _encode(image)
        if index % (CLASSES // TEST_IMAGES) == 0:
            yield f"test/images/test_{index * TEST_IMAGES // CLASSES}.JPEG", _encode(images[-1])


def draw_sample(path: Path, seed: int = SEED) -> None:
    """Write the sample archive to `path`, whole or not at all; the same seed gives the same bytes."""
    gratings = list_classes()
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        for texts_or_images in (_list_texts(gratings), _list_images(gratings, seed)):
            for name, content in texts_or_images:
                file.writestr(new_member(f"{ROOT}/{name}"), content)
