"""From the archive to the table of images: checked, free of duplicates, drawn and sorted."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import torch

from pipeline.ahead import decode_ahead
from pipeline.archive import Archive
from pipeline.errors import PipelineError
from pipeline.images import decode_rgb, digest_content
from pipeline.layouts import LabelledImage
from pipeline.params.data import DataParams
from pipeline.split import Split, draw_splits
from pipeline.tables import IMAGES, ROW_GROUP_BYTES, ROW_GROUP_ROWS


@dataclass(frozen=True)
class Prepared:
    """`groups` make up the table of images; they are read from the archive when they are taken.

    `broken` maps image_id to the reason, `duplicates` to the image_id of the same content that stays.
    """

    groups: Iterable[pa.Table]
    fingerprint: Mapping[str, Any]
    metrics: Mapping[str, Any]
    broken: Mapping[str, str]
    duplicates: Mapping[str, str]


@dataclass(frozen=True)
class _Census:
    usable: dict[str, LabelledImage] = field(default_factory=dict)
    grey: set[str] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)


class _Look(NamedTuple):
    digest: bytes
    is_grey: bool


def _look_at(content: bytes) -> _Look:
    pixels = decode_rgb(content)
    grey = torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[1], pixels[2])
    return _Look(digest_content(pixels), grey)


def _take_census(archive: Archive, stop_on_broken: bool, advance: Callable[[int], object]) -> _Census:
    """Decode every labelled image once; of the pixels only a digest is kept."""
    census = _Census()
    first_with: dict[bytes, str] = {}
    for image, look in decode_ahead(archive.labelled, lambda image: archive.read(image.member), _look_at):
        advance(1)
        if isinstance(look, Exception):
            if stop_on_broken:
                raise PipelineError(
                    f"{archive.path}: {image.member}: broken image ({look}); "
                    "replace it, or set data.on_broken: skip to leave broken images out"
                )
            census.broken[image.image_id] = str(look)
            continue
        kept = first_with.setdefault(look.digest, image.image_id)
        if kept != image.image_id:
            census.duplicates[image.image_id] = kept
            continue
        census.usable[image.image_id] = image
        if look.is_grey:
            census.grey.add(image.image_id)
    return census


def _read_groups(archive: Archive, census: _Census, drawn: Mapping[str, Split]) -> Iterator[pa.Table]:
    """Rows by split, then image_id. Image bytes as they are; label is the index of the sorted wnid."""
    labels = {wnid: label for label, (wnid, _) in enumerate(archive.classes)}
    group: list[dict[str, Any]] = []
    size = 0
    for image_id in sorted(drawn, key=lambda image_id: (drawn[image_id], image_id)):
        image = census.usable[image_id]
        content = archive.read(image.member)
        if len(group) == ROW_GROUP_ROWS or (group and size + len(content) > ROW_GROUP_BYTES):
            yield pa.Table.from_pylist(group, schema=IMAGES)
            group, size = [], 0
        row = image_id, drawn[image_id], image.wnid, labels[image.wnid], content
        group.append(dict(zip(IMAGES.names, row, strict=True)))
        size += len(content)
    yield pa.Table.from_pylist(group, schema=IMAGES)


def _count(archive: Archive, census: _Census, drawn: Mapping[str, Split]) -> dict[str, Any]:
    splits = list(drawn.values())
    images = {
        "labelled": len(archive.labelled),
        "broken": len(census.broken),
        "duplicates": len(census.duplicates),
        "greyscale": len(census.grey & drawn.keys()),
        "calibration": splits.count("calibration"),
        "evaluation": splits.count("evaluation"),
    }
    return {"images": images, "classes": len(archive.classes)}


def prepare(archive: Archive, params: DataParams, advance: Callable[[int], object]) -> Prepared:
    """Draw the images; nothing of the result depends on the container, its name or its member order.

    `advance` is called with 1 for each labelled image. Raises PipelineError for a broken image
    (unless `on_broken` is skip) and where the images are too few.
    """
    census = _take_census(archive, params.on_broken == "stop", advance)
    wnids = {image_id: image.wnid for image_id, image in census.usable.items()}
    drawn = draw_splits(wnids, params.calibration_images, params.evaluation_images, params.seed)
    fingerprint = {
        "kind": "images",
        "classes": [[wnid, words] for wnid, words in archive.classes],
        "seed": params.seed,
        "calibration_images": params.calibration_images,
        "evaluation_images": params.evaluation_images,
    }
    groups = _read_groups(archive, census, drawn)
    return Prepared(groups, fingerprint, _count(archive, census, drawn), census.broken, census.duplicates)
