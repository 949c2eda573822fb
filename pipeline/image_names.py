"""Which files are images, by their names."""

from pathlib import PurePosixPath

# Those that torchvision's ImageFolder takes, too.
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def has_ending(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in ENDINGS


def is_shown_image(member: str) -> bool:
    """Of a zip's member. Hidden is, among others, what macOS packs beside an image, under the same ending."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in member.split("/"))
    return not hidden and not member.endswith("/") and has_ending(member)
