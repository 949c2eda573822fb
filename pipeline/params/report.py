"""Section `report`: what the page shows."""

from typing import Annotated

from pydantic import Field

from pipeline.params.base import Section


class ReportParams(Section):
    gallery_images: Annotated[int, Field(ge=1, le=200)]
