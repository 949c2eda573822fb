"""Reads a zip in the Tiny ImageNet layout in place: nothing is unpacked, hostile members are refused."""

import re
import stat
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError

ANNOTATIONS = "val/val_annotations.txt"
LAYOUT = (
    "wnids.txt, val/val_annotations.txt and val/images/ (words.txt if there are names), "
    "at the top or inside one folder"
)
_BRING = "run download for the archive of data.source, or name a whole zip of your own"


@dataclass(frozen=True)
class Limits:
    """What an archive may claim to hold; the official one has 120,609 members and 248 MB."""

    members: int = 1_000_000
    total_bytes: int = 16 * 2**30
    member_bytes: int = 64 * 2**20
    ratio: float = 200.0


@dataclass(frozen=True)
class LabelledImage:
    """`image_id` is the same whatever folder the archive wraps its files in: `val/val_0.JPEG`."""

    image_id: str
    wnid: str
    member: str


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

    def read(self, member: str) -> bytes:
        """The member's bytes; raises ValueError with the reason where it is missing or damaged."""
        return _read_member(self._zip, member)


def _read_member(file: zipfile.ZipFile, member: str) -> bytes:
    try:
        return file.read(member)
    except KeyError:
        raise ValueError("not in the archive") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"damaged in the archive: {error}") from None


def _find_fault(member: zipfile.ZipInfo, limits: Limits) -> str | None:
    name = member.orig_filename
    if "\\" in name or "\0" in name:
        return "has a backslash or a zero byte in its name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute name"
    if ".." in name.split("/"):
        return "leads out of the archive with '..'"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.file_size > limits.member_bytes:
        return f"has {member.file_size} bytes, more than the limit of {limits.member_bytes}"
    if member.file_size > limits.ratio * max(member.compress_size, 1):
        return f"unpacks {member.compress_size} bytes to {member.file_size}, over {limits.ratio:g} to 1"
    return None


def _check_members(path: Path, members: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    if len(members) > limits.members:
        raise PipelineError(f"{path}: {len(members)} members, more than the limit of {limits.members}")
    seen: set[str] = set()
    for member in members:
        fault = "appears twice" if member.filename in seen else _find_fault(member, limits)
        if fault:
            raise PipelineError(
                f"{path}: member {member.orig_filename!r} {fault}; "
                "pack the archive again from plain files, or use one that you trust"
            )
        seen.add(member.filename)
    total_bytes = sum(member.file_size for member in members)
    if total_bytes > limits.total_bytes:
        raise PipelineError(
            f"{path}: {total_bytes} bytes unpacked, more than the limit of {limits.total_bytes}"
        )


def _find_root(path: Path, names: Sequence[str]) -> str:
    """The prefix of all names of the layout: empty or one folder with its slash."""
    known = set(names)
    heads = (name.removesuffix(ANNOTATIONS) for name in names if name.endswith(ANNOTATIONS))
    roots = sorted(head for head in heads if re.fullmatch(r"([^/]+/)?", head) and f"{head}wnids.txt" in known)
    if len(roots) == 1:
        return roots[0]
    if roots:
        raise PipelineError(
            f"{path}: holds the layout more than once, in {', '.join(roots)}; keep one of them"
        )
    tops = sorted({"/".join(name.split("/")[:2]) for name in names})
    found = ", ".join(tops[:6]) + (", ..." if len(tops) > 6 else "")
    raise PipelineError(
        f"{path}: not in the Tiny ImageNet layout; expected {LAYOUT}; found {found or 'no members at all'}"
    )


def _read_lines(path: Path, file: zipfile.ZipFile, member: str) -> list[tuple[int, str]]:
    """Numbered lines from 1, without the blank ones."""
    try:
        text = _read_member(file, member).decode("utf-8-sig")
    except ValueError as error:
        raise PipelineError(f"{path}: {member}: {error}; expected UTF-8 text; use a whole archive") from None
    lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
    return [(number, line) for number, line in lines if line.strip()]


def _read_classes(path: Path, file: zipfile.ZipFile, root: str) -> tuple[tuple[str, str], ...]:
    member = f"{root}wnids.txt"
    wnids = [line.strip() for _, line in _read_lines(path, file, member)]
    twice = next((wnid for wnid, times in Counter(wnids).items() if times > 1), None)
    if twice or not wnids:
        what = f"{twice!r} is listed twice" if twice else "lists no class"
        raise PipelineError(f"{path}: {member}: {what}; expected one wnid a line, each once")
    words = {}
    if f"{root}words.txt" in file.NameToInfo:
        lines = (line.strip().partition("\t") for _, line in _read_lines(path, file, f"{root}words.txt"))
        words = {wnid: name for wnid, _, name in lines}
    return tuple((wnid, words.get(wnid) or wnid) for wnid in sorted(wnids))


def _read_labelled(
    path: Path, file: zipfile.ZipFile, root: str, wnids: frozenset[str]
) -> tuple[LabelledImage, ...]:
    member = f"{root}{ANNOTATIONS}"
    found: dict[str, LabelledImage] = {}
    composed = {unicodedata.normalize("NFC", name): name for name in file.namelist()}
    for number, line in _read_lines(path, file, member):
        name, _, rest = line.strip().partition("\t")
        wnid = rest.partition("\t")[0].strip()
        where = f"{path}: {member}, line {number}"
        if not name or "/" in name or not wnid:
            raise PipelineError(f"{where}: expected 'file<TAB>wnid<TAB>x<TAB>y<TAB>w<TAB>h', found {line!r}")
        if wnid not in wnids:
            raise PipelineError(
                f"{where}: class {wnid!r} is not in {root}wnids.txt; add it there or correct it"
            )
        if name in found:
            raise PipelineError(f"{where}: {name!r} is annotated a second time; keep one line for each image")
        image = f"{root}val/images/{name}"
        if image not in file.NameToInfo:  # Some systems pack an accent as a letter of its own.
            image = composed.get(unicodedata.normalize("NFC", image), image)
        found[name] = LabelledImage(f"val/{name}", wnid, image)
    if not found:
        raise PipelineError(f"{path}: {member}: annotates no image; expected one line for each image")
    return tuple(found[name] for name in sorted(found))


def _list_training(file: zipfile.ZipFile, root: str, wnids: frozenset[str]) -> tuple[LabelledImage, ...]:
    pattern = re.compile(re.escape(root) + r"(train/([^/]+)/)images/([^/]+)")
    matches = filter(None, map(pattern.fullmatch, file.namelist()))
    found = (LabelledImage(match[1] + match[3], match[2], match[0]) for match in matches if match[2] in wnids)
    return tuple(sorted(found, key=lambda image: image.image_id))


@contextmanager
def open_archive(path: Path, limits: Limits = Limits()) -> Iterator[Archive]:
    """Open and check the archive; raises PipelineError naming the member or line that is at fault."""
    try:
        file = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; {_BRING}") from None
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: not a readable zip ({error}); {_BRING}") from None
    with file:
        _check_members(path, file.infolist(), limits)
        root = _find_root(path, file.namelist())
        classes = _read_classes(path, file, root)
        wnids = frozenset(wnid for wnid, _ in classes)
        labelled = _read_labelled(path, file, root, wnids)
        yield Archive(path, classes, labelled, _list_training(file, root, wnids), file)
