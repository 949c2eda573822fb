"""Sections `model` and `resolutions`: which network, and the sizes of its two roles."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.params.base import Section

Role = Literal["low", "high"]


class ModelParams(Section):
    name: Literal["static_vit"]
    weights: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)]


class ResolutionParams(Section):
    low: Annotated[int, Field(ge=8, le=1024)]
    high: Annotated[int, Field(ge=8, le=1024)]

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low} px) must be smaller than high ({self.high} px)")
        return self
