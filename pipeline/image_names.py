"""Which files are images, by their names."""

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

# Those that torchvision's ImageFolder takes, too.
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# Images to most people, and not to torchvision.
_UNREAD = (".gif", ".heic", ".heif", ".avif", ".jfif", ".jp2", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".psd")
# What the layouts read beside images.
TEXTS = ("wnids.txt", "words.txt", "val_annotations.txt")


def has_ending(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in ENDINGS


def is_read(name: str) -> bool:
    """Of files and members: an image, or a text that a layout has."""
    return has_ending(name) or PurePosixPath(name).name in TEXTS


def describe_unread(names: Iterable[str]) -> str:
    """How many images are in formats that are not read, by ending; empty where none is."""
    endings = Counter(PurePosixPath(name).suffix.lower() for name in names if not _is_hidden(name))
    found = [(ending, endings[ending]) for ending in _UNREAD if endings[ending]]
    return ", ".join(f"{count:,} {ending}" for ending, count in found)


def is_shown_image(member: str) -> bool:
    """Of a zip's member."""
    return not _is_hidden(member) and not member.endswith("/") and has_ending(member)


def _is_hidden(member: str) -> bool:
    """Among others what macOS packs beside an image, under the same ending."""
    parts = [part for part in member.split("/") if part != "."]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
