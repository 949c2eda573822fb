"""Sections `model` and `resolutions`: which network, and the sizes of its roles."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.params.base import Section, Seed

# low and high make up the cascade; mid is the static rival in between.
Role = Literal["low", "mid", "high"]


class ModelParams(Section):
    name: Annotated[str, Field(min_length=1)]
    weights: Annotated[str, Field(min_length=1)]
    seed: Seed
    classes: Annotated[str, Field(min_length=1)] | None = None


class ResolutionParams(Section):
    low: Annotated[int, Field(ge=8, le=1024)]
    mid: Annotated[int, Field(ge=8, le=1024)] | None
    high: Annotated[int, Field(ge=8, le=1024)]

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low} px) must be smaller than high ({self.high} px)")
        if self.mid is not None and not self.low < self.mid < self.high:
            raise ValueError(f"mid ({self.mid} px) must lie between low and high, or be empty")
        return self

    def by_role(self) -> dict[Role, int]:
        """Pixels of the roles that there are, from low to high."""
        sizes: dict[Role, int | None] = {"low": self.low, "mid": self.mid, "high": self.high}
        return {role: size_px for role, size_px in sizes.items() if size_px is not None}
