import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.archive import open_archive
from pipeline.files import sha256_of
from pipeline.images import decode_rgb, resize
from pipeline.sample import Grating, draw_sample, list_classes


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "sample.zip"
    draw_sample(path)
    return path


def contrast_kept(path: Path, gratings: list[Grating]) -> np.ndarray:
    """Spread of the luminance at 32 px over that at 64 px, for each class, on its first 4 images."""
    with open_archive(path) as archive:
        ratios = []
        for grating in gratings:
            members = [image.member for image in archive.labelled if image.wnid == grating.wnid][:4]
            full = torch.stack([decode_rgb(archive.read(member)) for member in members])
            spread = [images.float().mean(1).std((1, 2)).mean() for images in (full, resize(full, 32))]
            ratios.append(float(spread[1] / spread[0]))
    return np.array(ratios)


def test_fine_structure_vanishes_at_32_px_and_coarse_survives(sample: Path) -> None:
    coarse = contrast_kept(sample, [grating for grating in list_classes() if not grating.fine][::10])
    fine = contrast_kept(sample, [grating for grating in list_classes() if grating.fine][::10])
    assert coarse.min() > 0.8
    # What is left of the fine half is the noise, which every image carries: 4 * 0.31 of 28.6.
    assert fine.max() < 0.08


def strongest_wave(path: Path, grating: Grating) -> float:
    """Amplitude of the strongest wave at 32 px in grey levels, mean of the class."""
    with open_archive(path) as archive:
        members = [image.member for image in archive.labelled if image.wnid == grating.wnid]
        grey = (
            resize(torch.stack([decode_rgb(archive.read(member)) for member in members]), 32).float().mean(1)
        )
    spectrum = torch.fft.rfft2(grey - grey.mean((1, 2), keepdim=True)).abs()
    return float(spectrum.amax((1, 2)).mean()) * 2 / 32**2


def test_no_wave_of_the_fine_half_is_left_at_32_px(sample: Path) -> None:
    waves = {grating: strongest_wave(sample, grating) for grating in list_classes()[::5]}
    assert min(wave for grating, wave in waves.items() if not grating.fine) > 12
    # The strongest of all waves in the noise alone has 0.28.
    assert max(wave for grating, wave in waves.items() if grating.fine) < 0.35


def test_two_draws_are_the_same_bytes_and_another_seed_is_not(sample: Path, tmp_path: Path) -> None:
    draw_sample(tmp_path / "again.zip")
    draw_sample(tmp_path / "other.zip", seed=1)
    assert sha256_of(tmp_path / "again.zip") == sha256_of(sample) != sha256_of(tmp_path / "other.zip")


def test_layout_and_counts(sample: Path) -> None:
    with zipfile.ZipFile(sample) as file:
        names = [name.removeprefix("tiny-imagenet-200/") for name in file.namelist()]
    assert sum(name.startswith("val/images/") for name in names) == 4400
    assert sum(name.startswith("train/") and name.endswith(".JPEG") for name in names) == 800
    assert sum(name.startswith("test/images/") for name in names) == 8
    assert "train/n90000000/images/n90000000_3.JPEG" in names
    assert "train/n90000000/n90000000_boxes.txt" in names
    with open_archive(sample) as archive:
        assert len(archive.labelled) == 4400
        words = [text for _, text in archive.classes]
    assert words[0] == "coarse grating, 0 degrees, period 10 px"
    assert len(set(words)) == 200
    assert [text.split()[0] for text in words] == ["coarse"] * 100 + ["fine"] * 100


def test_the_mean_colour_says_nothing_about_the_class(sample: Path) -> None:
    """The spread of the class means is what chance gives to means of 22 colours."""
    with open_archive(sample) as archive:
        means = {image.wnid: [] for image in archive.labelled}
        for image in archive.labelled:
            means[image.wnid].append(decode_rgb(archive.read(image.member)).float().mean((1, 2)).numpy())
    colours = np.array([means[wnid] for wnid in sorted(means)])
    between, within = colours.mean(1).std(0), colours.std(1).mean(0)
    assert np.all(np.abs(between / (within / np.sqrt(22)) - 1) < 0.25)
