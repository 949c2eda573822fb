"""The files of a folder, and a folder of images as an archive: of the same files, the same byte for byte."""

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.image_names import is_read
from pipeline.members import LIMITS, Limits, find_fault, new_member


def walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files at any depth, sorted; hidden ones and those of hidden folders are passed over.

    Links are followed: sets of images are often made of them. A link to a folder that it is in has nothing
    to add. above: for the function itself, the folders that lead here.
    """
    real = folder.resolve()
    if real in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from walk(path, (*above, real))
        else:
            yield path


def find_files(folder: Path) -> list[Path]:
    """Images, and the texts of the layouts; raises PipelineError where one is a link to nothing."""
    found = [path for path in walk(folder) if is_read(path.name)]
    if lost := next((path for path in found if not path.exists()), None):
        raise PipelineError(f"{lost}: a link to {lost.readlink()}, which is not there; mend or remove it")
    return found


def identify_folder(folder: Path) -> str:
    """A digest that changes with any file's name, size or time; no file is opened."""
    digest = hashlib.sha256()
    for path in find_files(folder):
        facts = path.stat()
        name = path.relative_to(folder).as_posix()
        digest.update(repr((name, facts.st_size, facts.st_mtime_ns)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def measure_folder(folder: Path, limits: Limits = LIMITS) -> int:
    """Bytes of its files; raises PipelineError where they are none, or what no archive may hold."""
    files = find_files(folder)
    if not files:
        raise PipelineError(f"{folder}: no images found; expected a folder for each class, with images")
    total_bytes = 0
    for path in files:
        member = new_member(_find_name(path, folder))
        member.file_size = member.compress_size = path.stat().st_size
        if fault := find_fault(member, limits):
            raise PipelineError(f"{path}: {fault}; rename it, make it smaller, or move it out of the folder")
        total_bytes += member.file_size
    if total_bytes > limits.total_bytes:
        raise PipelineError(
            f"{folder}: images of {total_bytes} bytes, more than the limit of {limits.total_bytes}; name the "
            "folder of the validation images alone, or one of fewer images"
        )
    return total_bytes


def pack_folder(folder: Path, destination: Path) -> None:
    """Write the folder's files to the zip `destination`, uncompressed, whole or not at all."""
    with whole_file(destination) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        for path in find_files(folder):
            member = new_member(_find_name(path, folder))
            member.file_size = path.stat().st_size
            with path.open("rb") as source, file.open(member, "w") as target:
                shutil.copyfileobj(source, target)


def _find_name(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode(errors="replace").decode()
        raise PipelineError(f"{folder}: the name of {shown} is no UTF-8; rename it") from None
    return name
