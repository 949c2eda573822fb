"""Section `data`: where the images come from and how many are drawn."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.params.base import Section, Seed


def _read_digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("expected 64 hex digits, as sha256sum prints them, or nothing")
    return text.lower()


class DataParams(Section):
    source: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, AfterValidator(_read_digest)] | None
    calibration_images: Annotated[int, Field(ge=1)]
    evaluation_images: Annotated[int, Field(ge=1)]
    seed: Seed
    on_broken: Literal["stop", "skip"]
