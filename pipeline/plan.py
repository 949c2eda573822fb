"""What adaptive inference can bring at any escalation rate, from measured costs of the passes.

A cascade costs low + rate * high per image. Against always-high that is a speed-up of
1 / (low/high + rate), which is above 1 below the break-even rate 1 - low/high.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pipeline.cascade import Bench, Cascade
from pipeline.measure import Sample, measure_scenario
from pipeline.params.replay import ReplayParams, Scenario
from pipeline.policy import score
from pipeline.summary import are_stable, block_totals, whole_blocks
from pipeline.thresholds import at_rate
from pipeline.timing import WINDOWS, Floats, speedup_bound

RATES = (0.0, 0.05, 0.095, 0.2, 0.3, 0.5, 0.75, 1.0)


class BatchCosts(NamedTuple):
    """Milliseconds per image of the two roles, and the batches that they hold for."""

    low_ms: float
    high_ms: float
    low_batch: int
    high_batch: int


class Point(NamedTuple):
    """Asked and reached escalation rate, the speed-ups over static high.

    stable: as a replay says it; None, which JSON leaves out, of so few blocks that it cannot be told.
    """

    rate: float
    reached: float
    predicted: float
    replayed: float
    stable: bool | None


def read_batch_costs(profile: Mapping[str, Any], scenario: Scenario) -> BatchCosts:
    """One image at a time, or each role's cheapest batch, from metrics/profile.json."""
    if scenario == "single_stream":
        low, high = (profile[role]["latency_ms"]["mean"] for role in ("low", "high"))
        return BatchCosts(low, high, 1, 1)
    (low_batch, low_ms), (high_batch, high_ms) = (
        min(profile[role]["batch_ms_per_image"].items(), key=lambda item: item[1]) for role in ("low", "high")
    )
    return BatchCosts(low_ms, high_ms, int(low_batch), int(high_batch))


def break_even_rate(costs: BatchCosts) -> float:
    """The escalation rate at which a cascade costs what always-high costs; 0 where low is not cheaper."""
    return max(0.0, 1 - costs.low_ms / costs.high_ms)


def replay_rates(
    bench: Bench,
    sample: Sample,
    scenario: Scenario,
    costs: BatchCosts,
    params: ReplayParams,
    on_progress: Callable[[int], object],
    rates: Sequence[float] = RATES,
) -> list[Point]:
    """Run the cascade at each rate, timed beside static low and high; thresholds from the sample's scores."""
    cascade = bench.build({"low": costs.low_batch, "high": costs.high_batch})
    scores = _scores(cascade, sample)
    points = []
    for rate in rates:
        policy = replace(bench.policy, threshold=at_rate(scores, rate))
        cascade_at = Cascade(cascade.engines, policy, bench.deadline_ms)
        records, settled = measure_scenario(scenario, cascade_at, sample, params, on_progress)
        totals = block_totals(records)
        _low, high_ms, adaptive_ms, escalated, images = totals.sum(axis=0)
        reached = float(escalated / images)
        predicted = speedup_bound(costs.low_ms, costs.high_ms, reached)
        told = len(whole_blocks(totals)) >= WINDOWS
        stable = settled and are_stable(totals, params.stable_within) if told else None
        points.append(Point(rate, reached, predicted, float(high_ms / adaptive_ms), stable))
    return points


def _scores(cascade: Cascade, sample: Sample) -> Floats:
    low = cascade.engines["low"]
    parts = []
    for canvases in sample.canvases.split(low.batch_size):
        proxy = low.run(low.upload(canvases)).proxy
        assert proxy is not None
        parts.append(score(proxy.cpu().numpy(), cascade.policy.direction))
    return np.concatenate(parts)
