"""Replay: what the policies cost and answer on the evaluation images, checked against the ideal bound."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from pipeline.answers import NEEDS, PolicyName
from pipeline.cascade import Bench
from pipeline.fidelity import compare_with_eager
from pipeline.frontier import Outcome, Prices, draw_frontier
from pipeline.labels import true_classes
from pipeline.measure import Records, Sample, choose_batches, measure_memory, measure_scenario
from pipeline.params.model import Role
from pipeline.params.replay import ReplayParams, Scenario
from pipeline.rivals import summarise_rivals
from pipeline.summary import summarise_scenario
from pipeline.tables import REPLAY

_PERCENTILES = np.arange(1.0, 100.0)
# By which offline batches are chosen: on a GPU one is transferred while another is computed.
_CHOOSING_BATCHES = {"cpu": 1, "cuda": 8}


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
    latency: dict[str, list[float | None]]
    frontier: dict[str, list[float | None]]


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


def latency_percentiles(records: Mapping[PolicyName, Records]) -> dict[str, list[float | None]]:
    """Columns of metrics/plots/latency.csv: percentile, then milliseconds of each policy.

    Of a policy that is not replayed, None: of a column that is missing, `dvc plots` shows none of the others.
    """
    columns: dict[str, list[float | None]] = {"percentile": list(_PERCENTILES)}
    for name in NEEDS:
        found = np.percentile(records[name].latency_ms, _PERCENTILES) if name in records else None
        columns[name] = [None] * len(_PERCENTILES) if found is None else list(found)
    return columns


def replay(
    bench: Bench,
    sample: Sample,
    expected: Expected,
    params: ReplayParams,
    on_progress: Callable[[int], object],
) -> Replayed:
    """Time every scenario, and hold the engine against eager; `expected`: what fit says of the images."""
    few = sample.canvases[: bench.batch_size].clone()  # A view would go to other processes with all.
    truth = true_classes(sample.wnids, bench.weights.classes)
    oracle, scores = (
        np.array([values[image_id] for image_id in sample.image_ids])
        for values in (expected.oracle, expected.score)
    )
    decided = np.array([expected.escalated[image_id] for image_id in sample.image_ids])
    metrics: dict[str, Any] = {}
    tables: list[pa.Table] = []
    latency: dict[str, list[float | None]] = {}
    curves: dict[str, list[float | None]] = {}
    for scenario in params.scenarios:
        sizes = _batch_sizes(scenario, bench, sample.canvases)
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
    batches = _CHOOSING_BATCHES[bench.runtime.device.type]
    engines = bench.build(dict.fromkeys(bench.sizes_px, bench.batch_size)).engines
    return choose_batches(engines, canvases[: batches * bench.batch_size])
