"""Section `train`: how the shipped weights are made."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.params.base import Section, Seed

Share = Annotated[float, Field(ge=0, le=1)]


class RecipeParams(Section):
    """What a run of a hundred epochs and one of a few do unlike."""

    batch_size: Annotated[int, Field(ge=2, le=65536)]
    smallest_until: Share
    small_until: Share
    distillation: Annotated[float, Field(ge=0, le=100)]
    three_augment: Share
    color_jitter: Share
    cutmix: Share
    mixup: Share
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    average: Annotated[float, Field(ge=0, lt=1)]
    stem_blur: Annotated[float, Field(gt=0, le=4)] | None
    head_decay: Annotated[float, Field(ge=0)] | None

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.smallest_until > self.small_until:
            raise ValueError(
                f"smallest_until ({self.smallest_until}) is more than small_until ({self.small_until}); "
                "the largest size joins last: expected the same or less"
            )
        return self

    @model_validator(mode="after")
    def _mixed_in_one_way(self) -> Self:
        if self.cutmix + self.mixup > 1:
            raise ValueError(
                f"cutmix ({self.cutmix}) and mixup ({self.mixup}) exclude each other in an image; "
                "their chances must not add up to more than 1"
            )
        return self


class TrainParams(RecipeParams):
    """Its own recipe is the long one."""

    start: Annotated[str, Field(min_length=1)]
    recipe: Literal["auto", "long", "short"]
    short: RecipeParams
    max_minutes: Annotated[float, Field(gt=0, le=100_000)]
    steps: Annotated[int, Field(ge=1)] | None
    seed: Seed
    precision: Literal["auto", "float32", "bfloat16"]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    between_share: Annotated[float, Field(gt=0, le=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    crop_area: Annotated[float, Field(gt=0, le=1)]
    erasing: Share
    holdout_per_class: Annotated[int, Field(ge=1)]
    evaluations: Annotated[int, Field(ge=1, le=1000)]
    checkpoint_minutes: Annotated[float, Field(gt=0)]
