"""Section `replay`: how the policies are timed."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.params.base import Section, Seed

Scenario = Literal["single_stream", "offline"]
SCENARIOS: tuple[Scenario, ...] = ("single_stream", "offline")


def _refuse_twice(names: list[Scenario]) -> list[Scenario]:
    if len(set(names)) < len(names):
        raise ValueError(f"each scenario once at most, found {', '.join(names)}")
    return names


class ReplayParams(Section):
    scenarios: Annotated[list[Scenario], Field(min_length=1), AfterValidator(_refuse_twice)]
    images: Annotated[int, Field(ge=1)] | None
    compare_images: Annotated[int, Field(ge=1)]
    deadline_ms: Annotated[float, Field(ge=0)] | None
    single_stream_block: Annotated[int, Field(ge=1)]
    offline_block: Annotated[int, Field(ge=1)]
    warmup_windows: Annotated[int, Field(ge=3, le=1000)]
    stable_within: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    bootstrap: Annotated[int, Field(ge=100, le=100_000)]
    seed: Seed
