"""Section `data`: where the images come from and how many are drawn."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.base import Section, Seed


class DataParams(Section):
    source: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    calibration_images: Annotated[int, Field(ge=1)]
    evaluation_images: Annotated[int, Field(ge=1)]
    seed: Seed
    on_broken: Literal["stop", "skip"]
