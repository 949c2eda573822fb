"""What an archive's layout says of its images, whichever it is, and the texts that layouts share."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import PipelineError
from pipeline.members import read_member


@dataclass(frozen=True)
class LabelledImage:
    """`image_id` is the same whatever folder the archive wraps its files in: `val/val_0.JPEG`."""

    image_id: str
    wnid: str
    member: str


class Layout(NamedTuple):
    """`classes` are (wnid, words) sorted by wnid; the images are sorted by image_id."""

    classes: tuple[tuple[str, str], ...]
    labelled: tuple[LabelledImage, ...]
    training: tuple[LabelledImage, ...]


def sort_images(images: list[LabelledImage]) -> tuple[LabelledImage, ...]:
    return tuple(sorted(images, key=lambda image: image.image_id))


def name_classes(
    path: Path, file: zipfile.ZipFile, root: str, wnids: set[str]
) -> tuple[tuple[str, str], ...]:
    """Sorted, each with its words of `words.txt`, or with its own name where that has none."""
    words = {}
    if f"{root}words.txt" in file.NameToInfo:
        lines = (line.strip().partition("\t") for _, line in read_lines(path, file, f"{root}words.txt"))
        words = {wnid: name for wnid, _, name in lines}
    return tuple((wnid, words.get(wnid) or wnid) for wnid in sorted(wnids))


def read_lines(path: Path, file: zipfile.ZipFile, member: str) -> list[tuple[int, str]]:
    """Numbered lines from 1, without the blank ones."""
    try:
        text = read_member(file, member).decode("utf-8-sig")
    except ValueError as error:
        raise PipelineError(f"{path}: {member}: {error}; expected UTF-8 text; use a whole archive") from None
    lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
    return [(number, line) for number, line in lines if line.strip()]
