"""Replay: what the policies cost and answer on the evaluation images, checked against the ideal bound."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from pipeline.answers import PolicyName
from pipeline.cascade import Bench
from pipeline.fidelity import compare_with_eager
from pipeline.frontier import Outcome, Prices, draw_frontier
from pipeline.labels import true_classes
from pipeline.measure import Records, Sample, choose_batches, measure_memory, measure_scenario
from pipeline.params.model import Role
from pipeline.params.replay import ReplayParams, Scenario
from pipeline.rivals import summarise_rivals
from pipeline.tables import REPLAY
from pipeline.timing import (
    FEWEST_BLOCKS,
    Floats,
    bootstrap_blocks,
    is_stable,
    speedup_bound,
    summarise_latency,
)

# Columns of the block totals: milliseconds of each of these, images escalated, images.
_CASCADE: tuple[PolicyName, ...] = ("static_low", "static_high", "adaptive")
_LOW, _HIGH, _ADAPTIVE, _ESCALATED, _IMAGES = range(5)
_PERCENTILES = np.arange(1.0, 100.0)


class Expected(NamedTuple):
    """By image id: fit's decision, the score that it comes from, and the oracle that it learned from."""

    escalated: Mapping[str, bool]
    score: Mapping[str, float]
    oracle: Mapping[str, float]


class Replayed(NamedTuple):
    """metrics: of metrics/replay.json; table: data/replay.parquet; latency, frontier: of metrics/plots.

    Latency and frontier are the single stream's, or the only scenario's.
    """

    metrics: dict[str, Any]
    table: pa.Table
    latency: dict[str, list[float]]
    frontier: dict[str, list[float | None]]


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
    # By block: offline, the images of one share its time, and would agree with themselves.
    statics = totals[:, [_LOW, _HIGH]] / totals[:, [_IMAGES]]
    beaten = overhead.ci_high < 1
    verdict = {} if beaten and len(totals) < FEWEST_BLOCKS else {"within_bound": int(not beaten)}
    return {
        **{name: _summarise_policy(name, records, scenario, truth) for name in records},
        "speedup_vs_static_high": speedup._asdict(),
        "speedup_bound": speedup_bound(low_ms, high_ms, escalated / images),
        "overhead_vs_ideal": float(_overhead(totals.sum(axis=0, keepdims=True))[0]),
        "overhead_ci_low": overhead.ci_low,
        "overhead_ci_high": overhead.ci_high,
        **verdict,
        "stable": int(settled and all(is_stable(values, params.stable_within) for values in statics.T)),
        "images": int(images),
        "blocks": len(totals),
    }


def block_totals(records: Mapping[PolicyName, Records]) -> Floats:
    """(K, 5): milliseconds of static low, static high and adaptive, images escalated, images."""
    adaptive = records["adaptive"]
    columns = [np.bincount(records[name].block, records[name].latency_ms) for name in _CASCADE]
    columns.append(np.bincount(adaptive.block, adaptive.answers.escalated))
    columns.append(np.bincount(adaptive.block).astype(np.float64))
    return np.stack(columns, axis=1)


def records_table(
    scenario: Scenario, image_ids: Sequence[str], records: Mapping[PolicyName, Records]
) -> pa.Table:
    """Rows of data/replay.parquet: every image under every policy, in the order they are named."""
    parts = []
    for name, record in records.items():
        columns = {
            "image_id": pa.array(image_ids, pa.string()),
            "scenario": pa.array([scenario] * len(image_ids)),
            "policy": pa.array([name] * len(image_ids)),
            "latency_ms": pa.array(record.latency_ms),
            "escalated": pa.array(record.answers.escalated),
            "top1": pa.array(record.answers.top1.astype(np.int32)),
        }
        parts.append(pa.table(columns, schema=REPLAY))
    return pa.concat_tables(parts)


def latency_percentiles(records: Mapping[PolicyName, Records]) -> dict[str, list[float]]:
    """Columns of metrics/plots/latency.csv: percentile, then milliseconds of each policy."""
    columns = {name: np.percentile(record.latency_ms, _PERCENTILES) for name, record in records.items()}
    return {"percentile": list(_PERCENTILES), **{name: list(values) for name, values in columns.items()}}


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


def replay(
    bench: Bench,
    sample: Sample,
    expected: Expected,
    params: ReplayParams,
    on_progress: Callable[[int], object],
) -> Replayed:
    """Time every scenario, and hold the engine against eager; `expected`: what fit says of the images."""
    few = sample.canvases[: bench.batch_size]
    truth = true_classes(sample.wnids, bench.weights.classes)
    oracle, scores = (
        np.array([values[image_id] for image_id in sample.image_ids])
        for values in (expected.oracle, expected.score)
    )
    decided = np.array([expected.escalated[image_id] for image_id in sample.image_ids])
    metrics: dict[str, Any] = {}
    tables: list[pa.Table] = []
    latency: dict[str, list[float]] = {}
    curves: dict[str, list[float | None]] = {}
    for scenario in params.scenarios:
        sizes = _batch_sizes(scenario, bench, few)
        memory = measure_memory(bench, sizes, few, scenario)
        records, settled = measure_scenario(scenario, bench.build(sizes), sample, params, on_progress)
        summary = summarise_scenario(scenario, records, settled, truth, params)
        for name, peak_mb in memory.items():
            summary[name]["peak_memory_mb"] = peak_mb
        escalated = records["adaptive"].answers.escalated
        low, high = records["static_low"].answers, records["static_high"].answers
        summary |= summarise_rivals(low, high, int(escalated.sum()), oracle, truth)
        summary["batch_size"] = sizes
        summary["decision_agreement"] = float((escalated == decided).mean())
        frontier = draw_frontier(_outcome(records, truth), scores, oracle)
        summary |= {"knee": frontier.knee} if frontier.knee else {}
        metrics[scenario] = summary
        tables.append(records_table(scenario, sample.image_ids, records))
        if scenario == "single_stream" or not latency:
            latency, curves = latency_percentiles(records), frontier.columns
    metrics["engine"] = compare_with_eager(bench, sample.canvases[: params.compare_images])
    return Replayed(metrics, pa.concat_tables(tables), latency, curves)


def _outcome(records: Mapping[PolicyName, Records], truth: NDArray[np.int64] | None) -> Outcome:
    top1 = {name: record.answers.top1 for name, record in records.items()}
    prices = Prices(
        {name: float(record.latency_ms.mean()) for name, record in records.items()},
        float(records["adaptive"].answers.escalated.mean()),
    )
    return Outcome(
        prices,
        agree={name: answers == top1["static_high"] for name, answers in top1.items()},
        correct={} if truth is None else {name: answers == truth for name, answers in top1.items()},
    )


def _batch_sizes(scenario: Scenario, bench: Bench, canvases: Tensor) -> dict[Role, int]:
    """One image at a time, or what each role is fastest at."""
    if scenario == "single_stream":
        return dict.fromkeys(bench.sizes_px, 1)
    return choose_batches(bench.build(dict.fromkeys(bench.sizes_px, bench.batch_size)).engines, canvases)
