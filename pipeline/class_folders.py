"""The layout that most image sets have: a folder for each class, or no folders and so no labels."""

import unicodedata
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.image_names import is_shown_image
from pipeline.labels import UNLABELLED
from pipeline.layouts import LabelledImage, Layout, name_classes, sort_images

LAYOUT = "a folder for each class (val/<class>/<image> or <class>/<image>), or images without folders"
TRAINING = "train"
# What the images are taken from, the first that is there.
HELD_OUT = ("val", "valid", "validation", "test")


def read_class_folders(path: Path, file: zipfile.ZipFile) -> Layout:
    """Folders in a class's folder belong to the class. Hidden files, and what is no image, are passed over.

    Splits may be spelt with capitals. Raises PipelineError where there are no images, or none apart from
    those to train on, and where it is not clear of which class one is.
    """
    names = [name for name in file.namelist() if is_shown_image(name)]
    if not names:
        raise PipelineError(f"{path}: no images found; {_describe(file.namelist())}")
    root = _find_root(names)
    held_out, training = _find_splits(path, root, names)
    labelled = _list_images(path, root, held_out, names)
    learned = _list_images(path, root, training, names) if training else ()
    wnids = {image.wnid for image in labelled}
    if learned and (unknown := sorted(wnids - {image.wnid for image in learned})):
        what = f"class folder {unknown[0]!r} of {held_out} is not in {training}"
        if UNLABELLED in unknown:
            what = f"{held_out} has no class folders, {training} has"
        raise PipelineError(f"{path}: {what}; expected {LAYOUT}, the same classes in both")
    wnids |= {image.wnid for image in learned}
    return Layout(name_classes(path, file, root, wnids), labelled, learned)


def _describe(names: Sequence[str]) -> str:
    tops = sorted({"/".join(name.split("/")[:2]) for name in names})
    found = ", ".join(tops[:6]) + (", ..." if len(tops) > 6 else "")
    return f"expected {LAYOUT}; found {found or 'no members at all'}"


def _find_root(names: Sequence[str]) -> str:
    """The folders, each with its slash, that wrap all of the layout; empty where there are none."""
    root = ""
    while True:
        inside = [name.removeprefix(root) for name in names]
        tops = {name.partition("/")[0] for name in inside}
        top = min(tops)
        wraps = top.lower() not in (TRAINING, *HELD_OUT) and all(name.count("/") > 1 for name in inside)
        if len(tops) > 1 or not (wraps or top == "."):
            return root
        root += f"{top}/"


def _find_splits(path: Path, root: str, names: Sequence[str]) -> tuple[str, str]:
    """Prefixes of the images to draw from, and of those to train on, each empty where there is none.

    A class may be called `train`, or `test`: splits are what stands alone or beside another split.
    """
    inside = [name.removeprefix(root).split("/") for name in names]
    folders = {parts[0] for parts in inside if len(parts) > 1}
    splits = _spell_splits(folders)
    if not splits or (len(splits) == 1 and len(folders) > 1):
        _refuse_nested(path, root, [parts for parts in inside if len(parts) > 2])
        return "", ""
    held_out = next((splits[name] for name in HELD_OUT if name in splits), None)
    if held_out is None:
        raise PipelineError(
            f"{path}: holds images to train on alone, in {root}{splits[TRAINING]}/; expected "
            f"{HELD_OUT[0]}/<class>/ beside them: a threshold is worth nothing on images that the model "
            "learned from"
        )
    return f"{held_out}/", f"{splits[TRAINING]}/" if TRAINING in splits else ""


def _refuse_nested(path: Path, root: str, deep: Sequence[Sequence[str]]) -> None:
    """Raises PipelineError where a class would hold splits: these are several sets, or one beside others."""
    for folder in sorted({parts[0] for parts in deep}):
        splits = _spell_splits({parts[1] for parts in deep if parts[0] == folder})
        if TRAINING in splits and len(splits) > 1:
            raise PipelineError(
                f"{path}: {root}{folder}/, which would be a class, holds {splits[TRAINING]}/ and more; "
                f"expected {LAYOUT}; put splits outside of the classes, or pack one of several sets alone"
            )


def _spell_splits(folders: set[str]) -> dict[str, str]:
    """Of the folders that are called as splits, in capitals or not: split to folder."""
    spelt = {name.lower(): name for name in sorted(folders)}
    return {name: spelt[name] for name in (TRAINING, *HELD_OUT) if name in spelt}


def _list_images(path: Path, root: str, split: str, names: Sequence[str]) -> tuple[LabelledImage, ...]:
    images = [_label(root, split, name) for name in names if name.startswith(root + split)]
    loose = [image.member for image in images if "/" not in image.image_id.removeprefix(split)]
    if loose and len(loose) < len(images):
        raise PipelineError(
            f"{path}: {loose[0]} is in no class folder, others are; put it into one, or take it out"
        )
    image_id, times = Counter(image.image_id for image in images).most_common(1)[0]
    if times > 1:
        raise PipelineError(f"{path}: {image_id} is there twice, its accents written in two ways; keep one")
    return sort_images(images)


def _label(root: str, split: str, name: str) -> LabelledImage:
    """Some systems write an accent as a letter of its own: here it is always composed."""
    image_id = unicodedata.normalize("NFC", name.removeprefix(root))
    folder, slash, _ = image_id.removeprefix(split).partition("/")
    return LabelledImage(image_id, folder if slash else UNLABELLED, name)
