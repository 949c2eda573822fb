"""The members of a zip: read in place, hostile ones refused; written so that zips can be compared."""

import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.image_names import is_read


@dataclass(frozen=True)
class Limits:
    """What an archive may claim to hold of what is read; the official one has 120,609 members and 248 MB.

    ratio: of a member's bytes to what it takes, where these are more than `small_bytes`: a plain image in a
    format without compression is packed as well.
    """

    members: int = 1_000_000
    total_bytes: int = 16 * 2**30
    member_bytes: int = 64 * 2**20
    ratio: float = 200.0
    small_bytes: int = 4 * 2**20


LIMITS = Limits()
# A zip entry holds its time: a fixed one makes two zips of the same files equal, byte for byte.
_TIMESTAMP = (2020, 1, 1, 0, 0, 0)


def new_member(name: str) -> zipfile.ZipInfo:
    """A file to write that looks the same whenever it is written."""
    member = zipfile.ZipInfo(name, _TIMESTAMP)
    member.external_attr = 0o644 << 16
    return member


def read_member(file: zipfile.ZipFile, member: str | zipfile.ZipInfo) -> bytes:
    """Raises ValueError with the reason where it cannot be read."""
    try:
        return file.read(member)
    except KeyError:
        raise ValueError("not in the archive") from None
    # A RuntimeError tells that it is encrypted, an OSError that its bzip2 is damaged.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"cannot be read from the archive: {error}") from None


def find_fault(member: zipfile.ZipInfo, limits: Limits) -> str | None:
    """Why no archive may hold it; None where one may."""
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
    return _find_excess(member, limits) if is_read(name) else None


def _find_excess(member: zipfile.ZipInfo, limits: Limits) -> str | None:
    if member.file_size > limits.member_bytes:
        return f"has {member.file_size} bytes, more than the limit of {limits.member_bytes}"
    if member.file_size > max(limits.small_bytes, limits.ratio * max(member.compress_size, 1)):
        return f"unpacks {member.compress_size} bytes to {member.file_size}, over {limits.ratio:g} to 1"
    return None


def check_members(path: Path, members: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    if len(members) > limits.members:
        raise PipelineError(f"{path}: {len(members)} members, more than the limit of {limits.members}")
    seen: set[str] = set()
    for member in members:
        fault = "appears twice" if member.filename in seen else find_fault(member, limits)
        if fault:
            raise PipelineError(
                f"{path}: member {member.orig_filename!r} {fault}; "
                "pack the archive again from plain files, or use one that you trust"
            )
        seen.add(member.filename)
    total_bytes = sum(member.file_size for member in members if is_read(member.filename))
    if total_bytes > limits.total_bytes:
        raise PipelineError(
            f"{path}: {total_bytes} bytes unpacked, more than the limit of {limits.total_bytes}"
        )
