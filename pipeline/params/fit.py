"""Section `fit`: what is predicted, from what, and where the line is drawn."""

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.params.base import Section, Seed, nearest

OracleName = Literal["delta", "disagreement", "benefit"]
# PROXIES of pipeline.proxies, and the one of pipeline.learned: parameters are read where neither is wanted.
PROXY_NAMES = (
    "cls_change",
    "cls_last",
    "cls_max",
    "cls_last_share",
    "cls_early_to_final",
    "cls_turn",
    "confidence",
    "entropy",
    "margin",
    "energy",
    "learned",
)


def _refuse_unknown(proxy: str) -> str:
    if proxy not in PROXY_NAMES:
        raise ValueError(f"no proxy has this name; {nearest(proxy, PROXY_NAMES)}")
    return proxy


class ThresholdParams(Section):
    rule: Literal["escalation_rate", "max_delta", "risk", "accuracy_drop", "latency_budget", "fixed"]
    value: float
    confidence: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _value_fits_rule(self) -> Self:
        if self.rule == "escalation_rate" and not 0 <= self.value <= 1:
            raise ValueError(f"rule escalation_rate needs a value from 0 to 1, not {self.value}")
        if self.rule == "max_delta" and not 0 <= self.value < float("inf"):
            raise ValueError(f"rule max_delta needs a value of 0 or more, not {self.value}")
        if self.rule == "risk" and not 0 < self.value < 1:
            raise ValueError(f"rule risk needs a value above 0 and below 1, not {self.value}")
        if self.rule == "accuracy_drop" and not 0 <= self.value < 1:
            raise ValueError(f"rule accuracy_drop needs a share from 0 to below 1, not {self.value}")
        if self.rule == "latency_budget" and not 0 < self.value < float("inf"):
            raise ValueError(f"rule latency_budget needs milliseconds above 0, not {self.value}")
        if not math.isfinite(self.value):
            raise ValueError(f"the value must be a finite number, not {self.value}")
        return self


class FitParams(Section):
    oracle: OracleName
    proxy: Annotated[str, AfterValidator(_refuse_unknown)]
    calibration: Literal["isotonic", "linear"]
    threshold: ThresholdParams
    bootstrap: Annotated[int, Field(ge=100, le=10_000)]
    seed: Seed
