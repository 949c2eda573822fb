"""The images that a caller names: files, folders and zips of any layout, each with a way to its bytes."""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import PipelineError
from pipeline.folders import walk
from pipeline.image_names import ENDINGS, has_ending, is_shown_image
from pipeline.members import LIMITS, read_member

_EXPECTED = f"expected an image ({', '.join(ENDINGS)}), a folder of images or a .zip of them"


class Input(NamedTuple):
    """An image: its path, or `zip::member`, and what reads its bytes.

    `read` raises ValueError or OSError with the reason. That of a zip works during the zip's turn.
    """

    name: str
    read: Callable[[], bytes]


def _name(path: Path) -> str:
    """As text that every table can hold: a name may have bytes that are no UTF-8."""
    return str(path).encode(errors="replace").decode()


def _read_small(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    most_bytes = LIMITS.member_bytes
    if member.file_size > most_bytes:
        raise ValueError(f"{member.file_size} bytes in the archive, more than the limit of {most_bytes}")
    return read_member(file, member)


def _list_zip(path: Path) -> Iterator[Input]:
    """Sorted as the folder would be that it unpacks to; nothing is unpacked."""
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"{_name(path)}: not a readable zip ({error}); use a whole archive of images"
        ) from None
    with file:
        members = [member for member in file.infolist() if is_shown_image(member.filename)]
        for member in sorted(members, key=lambda member: member.filename.split("/")):
            yield Input(f"{_name(path)}::{member.filename}", partial(_read_small, file, member))


def _find(path: Path) -> Iterator[Input]:
    if path.is_dir():
        return (Input(_name(image), image.read_bytes) for image in walk(path) if has_ending(image.name))
    if not path.exists():
        raise PipelineError(f"{_name(path)}: not found; {_EXPECTED}")
    if path.suffix.lower() == ".zip":
        return _list_zip(path)
    if not has_ending(path.name):
        raise PipelineError(f"{_name(path)}: no image that is known by its ending; {_EXPECTED}")
    return iter([Input(_name(path), path.read_bytes)])


def find_images(paths: Iterable[Path]) -> Iterator[Input]:
    """In the order of the paths, those of a folder or zip sorted.

    Hidden files and folders are passed over, all but those that are named themselves.
    Raises PipelineError where a path is none of these, and where there is no image in any of them.
    """
    named = list(paths)
    empty = True
    for path in named:
        for image in _find(path):
            empty = False
            yield image
    if empty:
        raise PipelineError(f"no images found in {', '.join(map(_name, named)) or 'no path'}; {_EXPECTED}")
