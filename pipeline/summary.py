"""The numbers of one scenario: every policy's, and the cascade's against the ideal bound."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.answers import PolicyName
from pipeline.measure import Records
from pipeline.params.replay import ReplayParams, Scenario
from pipeline.timing import (
    FEWEST_BLOCKS,
    WINDOWS,
    Floats,
    bootstrap_blocks,
    is_stable,
    speedup_bound,
    summarise_latency,
)

# Columns of the block totals: milliseconds of each of these, images escalated, images.
_CASCADE: tuple[PolicyName, ...] = ("static_low", "static_high", "adaptive")
_LOW, _HIGH, _ADAPTIVE, _ESCALATED, _IMAGES = range(5)


def summarise_scenario(
    scenario: Scenario,
    records: Mapping[PolicyName, Records],
    settled: bool,
    truth: NDArray[np.int64] | None,
    params: ReplayParams,
) -> dict[str, Any]:
    """The numbers of one scenario in metrics/replay.json.

    settled: did the warm-up? truth: class index of each image (N,), None where the model does not know
    the classes. within_bound is 0 where even the interval's end beats what a cascade can do; of few blocks,
    whose interval is too narrow to tell, it is left out then.
    """
    totals = block_totals(records)
    low_ms, high_ms, _, escalated, images = totals.sum(axis=0)
    draw = (params.confidence, params.bootstrap, params.seed)
    speedup = bootstrap_blocks(_speedup, totals, *draw)
    overhead = bootstrap_blocks(_overhead, totals, *draw)
    beaten = overhead.ci_high < 1
    verdict = {} if beaten and len(totals) < FEWEST_BLOCKS else {"within_bound": int(not beaten)}
    return {
        **{name: _summarise_policy(name, records, scenario, truth) for name in records},
        "confidence": params.confidence,
        "speedup_vs_static_high": speedup._asdict(),
        "speedup_bound": speedup_bound(low_ms, high_ms, escalated / images),
        "overhead_vs_ideal": float(_overhead(totals.sum(axis=0, keepdims=True))[0]),
        "overhead_ci_low": overhead.ci_low,
        "overhead_ci_high": overhead.ci_high,
        **verdict,
        "stable": int(settled and are_stable(totals, params.stable_within)),
        "images": int(images),
        "blocks": len(totals),
    }


def are_stable(totals: Floats, within: float) -> bool:
    """Of block totals (K, 5): did both static policies cost the same all along?"""
    whole = whole_blocks(totals)
    compared = whole if len(whole) >= WINDOWS else totals
    # By block: offline, the images of one share its time, and would agree with themselves.
    statics = compared[:, [_LOW, _HIGH]] / compared[:, [_IMAGES]]
    return all(is_stable(values, within) for values in statics.T)


def whole_blocks(totals: Floats) -> Floats:
    """Without a last block of fewer images, which costs more by the image; that is no drift."""
    whole: Floats = totals[totals[:, _IMAGES] == totals[0, _IMAGES]]
    return whole


def block_totals(records: Mapping[PolicyName, Records]) -> Floats:
    """(K, 5): milliseconds of static low, static high and adaptive, images escalated, images."""
    adaptive = records["adaptive"]
    columns = [np.bincount(records[name].block, records[name].latency_ms) for name in _CASCADE]
    columns.append(np.bincount(adaptive.block, adaptive.answers.escalated))
    columns.append(np.bincount(adaptive.block).astype(np.float64))
    return np.stack(columns, axis=1)


def _summarise_policy(
    name: PolicyName,
    records: Mapping[PolicyName, Records],
    scenario: Scenario,
    truth: NDArray[np.int64] | None,
) -> dict[str, Any]:
    record, high = records[name], records["static_high"].answers.top1
    mean_ms = float(record.latency_ms.mean())
    summary: dict[str, Any] = {
        # A batch's time is shared equally, so its images have no percentiles of their own.
        "latency_ms": summarise_latency(record.latency_ms)
        if scenario == "single_stream"
        else {"mean": mean_ms},
        "images_per_s": 1000 / mean_ms,
        "escalation_rate": float(record.answers.escalated.mean()),
        "agreement": float((record.answers.top1 == high).mean()),
    }
    if truth is not None:
        summary["accuracy"] = float((record.answers.top1 == truth).mean())
    return summary


def _speedup(totals: Floats) -> Floats:
    return np.asarray(totals[:, _HIGH] / totals[:, _ADAPTIVE])


def _overhead(totals: Floats) -> Floats:
    rate = totals[:, _ESCALATED] / totals[:, _IMAGES]
    return np.asarray(totals[:, _ADAPTIVE] / (totals[:, _LOW] + rate * totals[:, _HIGH]))
