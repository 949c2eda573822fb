"""The static policy in between, held against a cascade image by image."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.deferral import Interval
from pipeline.errors import PipelineError
from pipeline.judge import column, losses_if_low
from pipeline.labels import true_classes
from pipeline.oracles import has_labels
from pipeline.paired import interval_of_difference
from pipeline.params.fit import FitParams
from pipeline.params.replay import Scenario
from pipeline.policy import escalate
from pipeline.tables import read_fingerprint, read_table
from pipeline.timing import Floats


def read_mid(
    samples: pl.DataFrame, replay: Path, scenario: Scenario, images: Path, deltas: Path
) -> pl.DataFrame:
    """The samples as `mark_mid` leaves them, from the tables of replay, images and deltas."""
    answers = pl.DataFrame(read_table(replay, ["image_id", "scenario", "policy", "top1"]))
    of_mid = answers.filter(scenario=scenario, policy="static_mid").select("image_id", "top1")
    return mark_mid(samples, of_mid, _expected(samples, images, deltas))


def _expected(samples: pl.DataFrame, images: Path, deltas: Path) -> pl.DataFrame:
    """image_id and top1: the model's index of the true class or, where it knows no classes, high's answer."""
    if has_labels(samples):
        table = pl.DataFrame(read_table(images, ["image_id", "wnid"]))
        truth = true_classes(table["wnid"].to_list(), read_fingerprint(deltas)["low"]["classes"])
        return table.select("image_id", top1=pl.Series(truth))
    return pl.DataFrame(read_table(deltas, ["image_id", "top1_high"])).rename({"top1_high": "top1"})


def mark_mid(samples: pl.DataFrame, answers: pl.DataFrame, expected: pl.DataFrame) -> pl.DataFrame:
    """The samples with `mid_right`: whether static mid gives the expected answer; null where not replayed.

    answers and expected: image_id and top1, a class index; expected is the truth or, without labels, high's.
    Raises PipelineError where no evaluation image was replayed.
    """
    both = answers.join(expected, on="image_id", suffix="_expected", validate="1:1")
    right = both.select("image_id", mid_right=pl.col("top1") == pl.col("top1_expected"))
    marked = samples.join(right, on="image_id", how="left", validate="1:1", maintain_order="left")
    if not is_answered(marked).any():
        raise PipelineError("the replay holds no answers of static mid on these images; replay again")
    return marked


def is_answered(samples: pl.DataFrame) -> pl.Series:
    """(N,) The evaluation images that static mid answered."""
    return (samples["split"] == "evaluation") & samples["mid_right"].is_not_null()


def lead_of_mid(samples: pl.DataFrame, scores: Floats, threshold: float, params: FitParams) -> Interval:
    """The share that static mid answers rightly less that of the cascade, paired by image.

    samples: as `mark_mid` leaves them; scores (N,) in their order.
    """
    answered = is_answered(samples)
    judged = samples.filter(answered)
    low = ~escalate(scores[answered.to_numpy()], threshold)
    high = column(judged, "high_correct") if has_labels(judged) else np.ones(len(judged))
    lead = column(judged, "mid_right") - (high - losses_if_low(judged) * low)
    return interval_of_difference(lead, params.threshold.confidence)


def say_leads(leads: Mapping[str, Interval], quality: str, images: int) -> str:
    """leads: of static mid over the cascade of each signal that was tried."""
    if not leads:
        return "No cascade that was tried is as cheap as static mid."
    sides: dict[tuple[str, str], list[str]] = {}
    for name, lead in leads.items():
        sides.setdefault(_side(lead), []).append(name)
    found = (
        f"{side} {'each of these cascades' if len(sides) == 1 else ', '.join(names)}, {where} the intervals"
        for (side, where), names in sides.items()
    )
    tried = f"Tried: {', '.join(leads)}; paired on {images:,} images."
    return (
        f"Beside cascades that cost no more than it, in {quality}, static mid is {'; '.join(found)}. {tried}"
    )


def _side(lead: Interval) -> tuple[str, str]:
    side = "ahead of" if lead.value > 0 else "behind" if lead.value < 0 else "level with"
    return side, "outside" if lead.ci_low > 0 or lead.ci_high < 0 else "within"
