"""The training split as uint8 in memory, with a part of it held out for whatever has to be chosen."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.ahead import decode_ahead
from pipeline.archive import Archive
from pipeline.errors import PipelineError
from pipeline.images import decode_canvas, digest_content, make_room
from pipeline.layouts import LabelledImage
from pipeline.split import rank


class Images(NamedTuple):
    """pixels (N, 3, S, S) uint8 and labels (N,) int64, the index of the sorted wnid."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainingData:
    """`left_out` counts training images whose content a validation image has too."""

    train: Images
    holdout: Images
    left_out: int
    sha256: str


def load_training(
    archive: Archive,
    canvas_px: int,
    classes: int,
    holdout_per_class: int,
    seed: int,
    advance: Callable[[int], object],
) -> TrainingData:
    """Decode the archive's training split; `advance` is called with 1 for every image read.

    Raises PipelineError where an image is broken, a class has too few, or there are more than `classes`.
    """
    if not archive.training:
        raise PipelineError(f"{archive.path}: holds no training images; expected train/<class>/ beside val/")
    if len(archive.classes) < 2:
        raise PipelineError(
            f"{archive.path}: lists one class, so that there is nothing to tell apart; add class folders"
        )
    if len(archive.classes) > classes:
        raise PipelineError(
            f"{archive.path}: lists {len(archive.classes)} classes, the model has {classes}; leave some out, "
            "or go on from weights (train.start), whose classifier is drawn anew for as many as there are"
        )
    validation = {
        digest_content(pixels) for _, pixels in _decode(archive, archive.labelled, canvas_px, advance)
    }
    digest = hashlib.sha256()
    usable: list[LabelledImage] = []
    # Room for all from the start: single images that are then stacked would take it twice.
    pixels = make_room(len(archive.training), canvas_px, "train on fewer, or on smaller ones")
    for image, decoded in _decode(archive, archive.training, canvas_px, advance):
        content = digest_content(decoded)
        if content not in validation:
            pixels[len(usable)] = decoded
            usable.append(image)
            digest.update(f"{image.image_id} {image.wnid}\n".encode() + content)
    held = _hold_out(archive, usable, holdout_per_class, seed)
    labels = {wnid: label for label, (wnid, _) in enumerate(archive.classes)}
    is_held = torch.tensor([image.image_id in held for image in usable])
    numbers = torch.tensor([labels[image.wnid] for image in usable])
    holdout = Images(pixels[: len(usable)][is_held], numbers[is_held])
    train = Images(_move_to_front(pixels, (~is_held).nonzero().flatten().tolist()), numbers[~is_held])
    return TrainingData(train, holdout, len(archive.training) - len(usable), digest.hexdigest())


def _decode(
    archive: Archive, images: Iterable[LabelledImage], canvas_px: int, advance: Callable[[int], object]
) -> Iterable[tuple[LabelledImage, Tensor]]:
    decode = partial(decode_canvas, size_px=canvas_px)
    for image, found in decode_ahead(images, lambda image: archive.read(image.member), decode):
        advance(1)
        if isinstance(found, Exception):
            raise PipelineError(f"{archive.path}: {image.member}: broken image ({found}); replace it")
        yield image, found


def _hold_out(archive: Archive, images: list[LabelledImage], per_class: int, seed: int) -> set[str]:
    """Ids of `per_class` images of every class, drawn by hash."""
    by_class: dict[str, list[str]] = {wnid: [] for wnid, _ in archive.classes}
    for image in images:
        by_class[image.wnid].append(image.image_id)
    held: set[str] = set()
    for wnid, image_ids in by_class.items():
        if len(image_ids) <= per_class:
            found = f"{archive.path}: class {wnid} has {len(image_ids)} training images of its own"
            remedy = f"; set it to {len(image_ids) - 1} or less" if len(image_ids) > 1 else ""
            raise PipelineError(
                f"{found}, expected more than the {per_class} of train.holdout_per_class{remedy}, or add some"
            )
        held.update(sorted(image_ids, key=lambda image_id: rank("holdout", seed, image_id))[:per_class])
    return held


def _move_to_front(pixels: Tensor, rows: list[int]) -> Tensor:
    """The images of these rising rows, in place; those that they take the place of are lost."""
    for place, row in enumerate(rows):
        pixels[place] = pixels[row]
    return pixels[: len(rows)]
