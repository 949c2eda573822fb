"""The layout of Tiny ImageNet: the labels of the validation images stand in a text."""

import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.image_names import ENDINGS, has_ending, is_shown_image
from pipeline.layouts import LabelledImage, Layout, name_classes, read_lines, sort_images

ANNOTATIONS = "val/val_annotations.txt"
LAYOUT = "wnids.txt, val/val_annotations.txt and val/images/ (words.txt if there are names)"


def is_annotated(names: Sequence[str]) -> bool:
    return any(f"/{name}".endswith(f"/{ANNOTATIONS}") for name in names)


def read_annotated(path: Path, file: zipfile.ZipFile) -> Layout:
    """Raises PipelineError naming the member or line that is at fault."""
    root = _find_root(path, file.namelist())
    wnids = _read_wnids(path, file, root)
    labelled = _read_labelled(path, file, root, wnids)
    return Layout(name_classes(path, file, root, wnids), labelled, _list_training(file, root, wnids))


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
    found = next(name for name in names if name.endswith(ANNOTATIONS))
    raise PipelineError(
        f"{path}: holds {found} and is not in Tiny ImageNet's layout; expected {LAYOUT}, at the top or "
        "inside one folder; where the images are in class folders, take that text out"
    )


def _read_wnids(path: Path, file: zipfile.ZipFile, root: str) -> set[str]:
    member = f"{root}wnids.txt"
    wnids = [line.strip() for _, line in read_lines(path, file, member)]
    twice = next((wnid for wnid, times in Counter(wnids).items() if times > 1), None)
    if twice or not wnids:
        what = f"{twice!r} is listed twice" if twice else "lists no class"
        raise PipelineError(f"{path}: {member}: {what}; expected one wnid a line, each once")
    return set(wnids)


def _read_labelled(
    path: Path, file: zipfile.ZipFile, root: str, wnids: set[str]
) -> tuple[LabelledImage, ...]:
    member = f"{root}{ANNOTATIONS}"
    found: dict[str, LabelledImage] = {}
    composed = {unicodedata.normalize("NFC", name): name for name in file.namelist()}
    for number, line in read_lines(path, file, member):
        where = f"{path}: {member}, line {number}"
        name, wnid = _read_line(line, where)
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
    if not any(image.member in file.NameToInfo for image in found.values()):
        raise PipelineError(
            f"{path}: {member} annotates images of which none is in {root}val/images/; where the images are "
            "in class folders, take that text out"
        )
    return sort_images(list(found.values()))


def _read_line(line: str, where: str) -> tuple[str, str]:
    """The image's file and its wnid."""
    name, _, rest = line.strip().partition("\t")
    wnid = rest.partition("\t")[0].strip()
    if not name or "/" in name or not wnid:
        raise PipelineError(f"{where}: expected 'file<TAB>wnid<TAB>x<TAB>y<TAB>w<TAB>h', found {line!r}")
    if not has_ending(name):
        raise PipelineError(f"{where}: {name!r} is no image by its ending; expected {', '.join(ENDINGS)}")
    return name, wnid


def _list_training(file: zipfile.ZipFile, root: str, wnids: set[str]) -> tuple[LabelledImage, ...]:
    """Images lie in the folder of their class or, as in the set itself, in a folder images in it."""
    pattern = re.compile(re.escape(root) + r"(train/([^/]+)/)(?:images/)?([^/]+)")
    matches = filter(None, map(pattern.fullmatch, file.namelist()))
    found = [
        LabelledImage(match[1] + match[3], match[2], match[0])
        for match in matches
        if match[2] in wnids and is_shown_image(match[0])
    ]
    return sort_images(found)
