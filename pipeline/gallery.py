"""The images that change most, and least, from low to high resolution."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from pipeline.tables import iter_batches, read_fingerprint

_JPEG = b"\xff\xd8"
# What the page holds of an image: no browser shows every format, and photographs take megabytes each.
_MOST_BYTES = 32 * 1024
_SHOWN_PX = 256
# The images of the table have passed the limits of prepare, which are above Pillow's.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Picture:
    """One image of the page; `escalated` is None where replay did not run the image."""

    image_id: str
    class_words: str
    delta: float
    agree: bool
    escalated: bool | None
    data_uri: str


def pick_extremes(deltas: pl.DataFrame, count: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of the `count` largest deltas, largest first, and of the smallest, smallest first."""
    largest = deltas.sort("delta", "image_id", descending=[True, False]).head(count)
    return largest, deltas.sort("delta", "image_id").head(count)


def load_pictures(images: Path, rows: pl.DataFrame, escalated: Mapping[str, bool]) -> list[Picture]:
    """The pictures of `rows` (columns image_id, delta, agree), in their order."""
    classes = dict(read_fingerprint(images).get("classes", []))
    found = _find_images(images, set(rows["image_id"]))
    return [
        Picture(
            image_id=row["image_id"],
            class_words=classes.get(found[row["image_id"]][0], found[row["image_id"]][0]),
            delta=row["delta"],
            agree=row["agree"],
            escalated=escalated.get(row["image_id"]),
            data_uri=_data_uri(found[row["image_id"]][1]),
        )
        for row in rows.iter_rows(named=True)
        if row["image_id"] in found
    ]


def _find_images(images: Path, wanted: set[str]) -> dict[str, tuple[str, bytes]]:
    """(wnid, JPEG) of the wanted ids; batch by batch, since the file may be larger than memory."""
    found = {}
    for batch in iter_batches(images, ["image_id", "wnid", "jpeg"]):
        for position, image_id in enumerate(batch["image_id"].to_pylist()):
            if image_id in wanted:
                found[image_id] = (batch["wnid"][position].as_py(), batch["jpeg"][position].as_py())
    return found


def _data_uri(content: bytes) -> str:
    small = content.startswith(_JPEG) and len(content) <= _MOST_BYTES
    jpeg = content if small else _shrink(content)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _shrink(content: bytes) -> bytes:
    """A small JPEG; a grey one where Pillow cannot read what prepare could decode."""
    stream = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255.
                levels = (np.asarray(image, dtype=np.int32) + 128) // 257
                shown = Image.fromarray(levels.astype(np.uint8)).convert("RGB")
            else:
                shown = image.convert("RGB")
            shown.thumbnail((_SHOWN_PX, _SHOWN_PX))
    except Exception:
        shown = Image.new("RGB", (_SHOWN_PX, _SHOWN_PX), "grey")
    shown.save(stream, "JPEG")
    return stream.getvalue()
