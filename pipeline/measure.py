"""Running the policies on the evaluation images, interleaved, with a clock beside them.

Inside the timed region: transfer, resize, normalisation, every forward pass, proxy, decision and the
answer's way back to the host. Outside: reading and decoding the image.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.answers import NEEDS, Answers, PolicyName
from pipeline.cascade import Bench, Cascade
from pipeline.engines.base import Engine, halvings
from pipeline.images import decode_stored, make_room
from pipeline.memory import peak_memory_mb
from pipeline.params.model import Role
from pipeline.params.replay import ReplayParams, Scenario
from pipeline.runtime import prepare_process, synchronize
from pipeline.split import rank
from pipeline.tables import iter_batches, read_table
from pipeline.timing import Floats, settle

_BATCHES_TRIED = 4


class System(Protocol):
    """Whatever answers canvases under a policy: a cascade, or what it is compared with."""

    def answer(self, name: PolicyName, canvases: Tensor) -> Answers: ...


@dataclass(frozen=True)
class Sample:
    """Evaluation images: ids and wnids (N,), canvases on the host, uint8 (N, 3, S, S)."""

    image_ids: list[str]
    wnids: list[str]
    canvases: Tensor


@dataclass(frozen=True)
class Records:
    """One policy in one scenario, per image (N,): latency, number of the block it ran in, and answers."""

    latency_ms: Floats
    block: NDArray[np.intp]
    answers: Answers


def read_sample(images: Path, canvas_px: int, at_most: int | None) -> Sample:
    """Decode the evaluation images, or a draw of `at_most`, in file order."""
    chosen = _draw(images, at_most)
    ids: list[str] = []
    wnids: list[str] = []
    canvases = make_room(len(chosen), canvas_px, "set replay.images to fewer")
    for batch in iter_batches(images, ["image_id", "wnid", "jpeg"]):
        for image_id, wnid, jpeg in zip(*(column.to_pylist() for column in batch), strict=True):
            if image_id in chosen:
                canvases[len(ids)] = decode_stored(image_id, jpeg, canvas_px)
                ids.append(image_id)
                wnids.append(wnid)
    return Sample(ids, wnids, canvases)


def _draw(images: Path, at_most: int | None) -> set[str]:
    """Ids of `at_most` evaluation images, by hash: names may begin with the class. None: all."""
    columns = read_table(images, ["image_id", "split"]).to_pydict()
    pairs = zip(columns["image_id"], columns["split"], strict=True)
    known = [image_id for image_id, split in pairs if split == "evaluation"]
    return set(sorted(known, key=lambda image_id: rank("replay", image_id))[:at_most])


def measure_scenario(
    scenario: Scenario,
    cascade: Cascade,
    sample: Sample,
    params: ReplayParams,
    on_progress: Callable[[int], object],
) -> tuple[dict[PolicyName, Records], bool]:
    """Time every policy on every image; returns the records and whether the warm-up settled.

    Block by block, each policy runs the same images before the next block begins, in an order drawn
    anew, so that a slow moment of the machine falls on all of them alike.
    """
    one_by_one = scenario == "single_stream"
    size = params.single_stream_block if one_by_one else params.offline_block
    settled = _warm_up(cascade, sample.canvases[:size], one_by_one, params)
    rng = np.random.default_rng(params.seed)
    policies = cascade.policies
    parts: dict[PolicyName, list[tuple[Floats, Answers]]] = {name: [] for name in policies}
    for block in sample.canvases.split(size):
        gc.collect()
        for index in rng.permutation(len(policies)):
            name = policies[index]
            parts[name].append(run_block(cascade, name, block, one_by_one))
        on_progress(len(block))
    return {name: _join(blocks) for name, blocks in parts.items()}, settled


def choose_batches(engines: Mapping[Role, Engine], canvases: Tensor, rounds: int = 3) -> dict[Role, int]:
    """The batch of each role that takes least time per image, of the engine's and its halvings.

    A static policy that runs larger batches than suit the processor would flatter the adaptive one,
    whose escalated images come in smaller ones. Sizes take turns; the first round warms up.
    """
    chosen: dict[Role, int] = {}
    for role, engine in engines.items():
        sizes = halvings(engine.batch_size)[:_BATCHES_TRIED]
        taken_s = [[_run_through(engine, canvases, size) for size in sizes] for _ in range(rounds)]
        chosen[role] = sizes[int(np.min(taken_s[1:], axis=0).argmin())]
    return chosen


def _run_through(engine: Engine, canvases: Tensor, size: int) -> float:
    """Seconds for all canvases in batches of `size`."""
    started_s = time.perf_counter()
    for part in canvases.split(size):
        engine.run(engine.upload(part))
    synchronize(engine.runtime.device)
    return time.perf_counter() - started_s


def measure_memory(
    bench: Bench, batch_sizes: Mapping[Role, int], canvases: Tensor, scenario: Scenario
) -> dict[PolicyName, float | None]:
    """Peak memory of each policy on its own, MB: only the engines it needs, and a few of its inputs."""
    step = 1 if scenario == "single_stream" else len(canvases)
    needed = {name: roles for name, roles in NEEDS.items() if set(roles) <= batch_sizes.keys()}
    return {
        name: peak_memory_mb(
            partial(_run_alone, bench, name, {role: batch_sizes[role] for role in roles}, canvases, step),
            bench.runtime.device,
        )
        for name, roles in needed.items()
    }


def _run_alone(
    bench: Bench, name: PolicyName, batch_sizes: Mapping[Role, int], canvases: Tensor, step: int
) -> None:
    prepare_process(bench.runtime)
    cascade = bench.build(batch_sizes)
    for part in canvases.split(step):
        cascade.answer(name, part)


def _warm_up(cascade: Cascade, canvases: Tensor, one_by_one: bool, params: ReplayParams) -> bool:
    """Run every policy, and so every shape, until three windows in a row agree."""

    def window() -> float:
        return sum(
            float(run_block(cascade, name, canvases, one_by_one)[0].sum()) for name in cascade.policies
        )

    return settle(window, params.stable_within, params.warmup_windows)


def run_block(system: System, name: PolicyName, canvases: Tensor, one_by_one: bool) -> tuple[Floats, Answers]:
    """Latency per image, ms (B,), and answers; a batched block's time is shared equally."""
    if not one_by_one:
        elapsed_ms, answers = _timed(system, name, canvases)
        return np.full(len(canvases), elapsed_ms / len(canvases)), answers
    results = [_timed(system, name, canvas) for canvas in canvases.split(1)]
    return np.array([elapsed_ms for elapsed_ms, _ in results]), _concat([answers for _, answers in results])


def _timed(system: System, name: PolicyName, canvases: Tensor) -> tuple[float, Answers]:
    started_ns = time.perf_counter_ns()
    answers = system.answer(name, canvases)
    return (time.perf_counter_ns() - started_ns) / 1e6, answers


def _concat(parts: list[Answers]) -> Answers:
    return Answers(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _join(blocks: list[tuple[Floats, Answers]]) -> Records:
    sizes = [len(latency) for latency, _ in blocks]
    return Records(
        latency_ms=np.concatenate([latency for latency, _ in blocks]),
        block=np.repeat(np.arange(len(blocks)), sizes),
        answers=_concat([answers for _, answers in blocks]),
    )
