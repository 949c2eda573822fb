"""Tiny zips for the tests, in the layouts that are known and in wrong ones."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.archive import open_archive
from pipeline.errors import PipelineError
from pipeline.members import Limits

ROOT = "tiny-imagenet-200/"


def jpeg(seed: int, mode: str = "RGB", size: tuple[int, int] = (8, 8), format: str = "JPEG") -> bytes:  # noqa: A002
    """An image of its own for each seed."""
    rng = np.random.default_rng(seed)
    pixels = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
    stream = io.BytesIO()
    pixels.save(stream, format, quality=90)
    return stream.getvalue()


def members(
    images: Sequence[tuple[str, str, bytes]], wnids: Sequence[str], root: str = ROOT
) -> dict[str, bytes]:
    """Members of an archive whose images are (file name, wnid, bytes)."""
    annotations = "".join(f"{name}\t{wnid}\t0\t0\t7\t7\n" for name, wnid, _ in images)
    texts = {
        f"{root}wnids.txt": "".join(f"{wnid}\n" for wnid in wnids).encode(),
        f"{root}words.txt": "".join(f"{wnid}\tname of {wnid}\n" for wnid in wnids).encode(),
        f"{root}val/val_annotations.txt": annotations.encode(),
    }
    return texts | {f"{root}val/images/{name}": content for name, _, content in images}


def write_zip(path: Path, content: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def balanced(per_class: int, wnids: Sequence[str] = ("n2", "n1")) -> list[tuple[str, str, bytes]]:
    """`per_class` different images of each class, classes in turn."""
    count = per_class * len(wnids)
    return [(f"val_{i}.JPEG", wnids[i % len(wnids)], jpeg(i)) for i in range(count)]


def refuse(path: Path, *words: str, limits: Limits | None = None) -> str:
    """The error of opening `path`, which must name the file and hold all `words`."""
    with pytest.raises(PipelineError) as caught, open_archive(path, limits or Limits()):
        pass
    message = str(caught.value)
    assert all(word in message for word in (str(path), *words)), message
    return message
