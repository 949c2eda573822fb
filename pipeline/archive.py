"""A zip of images, opened and checked; nothing is unpacked."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.annotated import is_annotated, read_annotated
from pipeline.class_folders import read_class_folders
from pipeline.errors import PipelineError
from pipeline.image_names import describe_unread
from pipeline.layouts import LabelledImage
from pipeline.members import LIMITS, Limits, check_members, read_member

_BRING = "run download for the archive of data.source, or name a whole zip of your own"


@dataclass(frozen=True)
class Archive:
    """An open archive: `classes` are (wnid, words) sorted by wnid.

    `labelled` are the validation images and `training` the training images of these classes, sorted by
    image_id.
    """

    path: Path
    classes: tuple[tuple[str, str], ...]
    labelled: tuple[LabelledImage, ...]
    training: tuple[LabelledImage, ...]
    _zip: zipfile.ZipFile

    def describe_passed_over(self) -> str:
        """How many of its images are in formats that are not read, by ending; empty where none is."""
        return describe_unread(self._zip.namelist())

    def read(self, member: str) -> bytes:
        """The member's bytes; raises ValueError with the reason where it is missing or damaged."""
        return read_member(self._zip, member)


@contextmanager
def open_archive(path: Path, limits: Limits = LIMITS) -> Iterator[Archive]:
    """Open and check the archive; raises PipelineError naming the member or line that is at fault."""
    try:
        file = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; {_BRING}") from None
    except IsADirectoryError:
        raise PipelineError(
            f"{path}: a folder, expected a zip; `adaptive-vit download --set source={path} --archive FILE` "
            "makes one of it"
        ) from None
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: not a readable zip ({error}); {_BRING}") from None
    with file:
        check_members(path, file.infolist(), limits)
        read = read_annotated if is_annotated(file.namelist()) else read_class_folders
        yield Archive(path, *read(path, file), file)
