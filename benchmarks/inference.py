"""Inference side by side: the usual way and every engine, every policy, one stream and offline.

The systems take turns block by block over the same images. Each escalates the same share of those that it
is timed on, by a threshold from its own scores of just these. Timed are resize, normalisation, passes, proxy,
decision and the answer on the host; decoding is outside, for all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.answers import REFERENCE, ByName, compare_answers, worst
from benchmarks.footprint import measure_peaks
from benchmarks.usual import USUAL, UsualWay, as_picture
from pipeline.answers import NEEDS, PolicyName
from pipeline.backends import BACKENDS, why_not
from pipeline.cascade import Bench, Cascade
from pipeline.measure import System, choose_batches, run_block
from pipeline.params.model import Role
from pipeline.params.replay import Scenario
from pipeline.params.runtime import Precision
from pipeline.policy import Policy
from pipeline.runtime import Runtime
from pipeline.thresholds import at_rate
from pipeline.timing import Floats, spread, summarise_latency
from pipeline.vit import Weights

ESCALATION_RATE = 0.095
# Largest batch, and images of an offline block, by kind of device; a GPU is idle at the CPU's.
BATCH = {"cpu": 32, "cuda": 512}
# The escalated images of a block that fill no batch weigh less in a larger one.
OFFLINE_BLOCK = {"cpu": 256, "cuda": 4096}
# Images by which the batches are chosen; a GPU's overlap, so that it takes several to see what each takes.
CHOOSING_IMAGES = {"cpu": 32, "cuda": 4096}
SINGLE_BLOCK = 20
# The usual way knows no batches: of an offline block it runs a part, which takes long enough.
USUAL_IMAGES = 64
# By which outputs are compared.
COMPARED_IMAGES = 64
WARM_UP_IMAGES = {"single_stream": 20, "offline": 64}
# A system that would be through sooner repeats each block, so that no slow moment decides; so often at most.
MEASURED_S = {"cpu": 10.0, "cuda": 2.0}
MOST_REPEATS = 8


def name_systems() -> dict[str, tuple[str, Precision]]:
    """Every backend in every precision, by its name in the results, whether it runs here or not."""
    asked = [(backend, precision) for backend in BACKENDS for precision in get_args(Precision)]
    return {f"{backend} {precision}": (backend, precision) for backend, precision in asked}


def list_runtimes(runtime: Runtime, skip: Sequence[str]) -> dict[str, Runtime]:
    """Every engine and precision that runs on the device, by name, but for those to skip.

    skip: names, or backends in every precision.
    """
    return {
        name: replace(runtime, backend=backend, precision=precision)
        for name, (backend, precision) in name_systems().items()
        if not {backend, name} & set(skip) and why_not(backend, runtime.device, precision) is None
    }


def set_usual_rate(usual: UsualWay, canvases: Tensor) -> None:
    """Let it escalate the share of just these images."""
    scores = np.array([usual.score(as_picture(canvas)) for canvas in canvases])
    usual.threshold = at_rate(scores, ESCALATION_RATE)


def build_bench(weights: Weights, sizes_px: Mapping[Role, int], runtime: Runtime) -> Bench:
    """With a threshold that is yet to be set."""
    # Which images are escalated does not matter to the time, so the direction is not learned.
    made = Policy("delta", "cls_change", 1, 0.0, "escalation_rate", ESCALATION_RATE, {}, 0, {})
    return Bench(weights, sizes_px, runtime, made, BATCH[runtime.device.type])


def set_rate(cascade: Cascade, canvases: Tensor) -> NDArray[np.float64]:
    """Let it escalate the share of just these images; returns their proxies, (N,)."""
    low = cascade.engines["low"]
    proxies = (low.run(low.upload(part)).proxy for part in canvases.split(low.batch_size))
    scores = np.concatenate([proxy.double().cpu().numpy() for proxy in proxies if proxy is not None])
    cascade.policy = replace(cascade.policy, threshold=at_rate(scores, ESCALATION_RATE))
    return scores


def compare(
    weights: Weights,
    sizes_px: Mapping[Role, int],
    runtime: Runtime,
    images: Mapping[Scenario, Tensor],
    skip: Sequence[str],
    memory: bool,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """By scenario, system and policy: latency, images/s, memory; and what `compare_answers` finds.

    images: canvases by scenario, uint8 (N, 3, S, S).
    """
    usual = UsualWay(weights, sizes_px, runtime.device, direction=1, threshold=0.0)
    runtimes = list_runtimes(runtime, skip)
    benches = {name: build_bench(weights, sizes_px, chosen) for name, chosen in runtimes.items()}
    found: dict[str, Any] = {}
    answers: dict[Scenario, dict[str, ByName]] = {}
    for scenario, canvases in images.items():
        cascades = _build_all(scenario, benches, canvases, report)
        report(f"{scenario}: set the share escalated")
        scores = {name: set_rate(cascade, canvases) for name, cascade in cascades.items()}
        answers[scenario] = compare_answers(cascades, scores, canvases[:COMPARED_IMAGES])
        report(f"{scenario}: measure")
        found[scenario] = _compare_in(scenario, usual, cascades, canvases)
        if not memory:
            continue
        report(f"{scenario}: memory")
        ready = {name: replace(benches[name], policy=cascade.policy) for name, cascade in cascades.items()}
        batches = {name: found[scenario][name]["batch_size"] for name in cascades}
        few = canvases[: SINGLE_BLOCK if scenario == "single_stream" else BATCH[runtime.device.type]]
        peaks = measure_peaks(weights, sizes_px, ready, batches, usual, few)
        for name, by_policy in peaks.items():
            for policy, peak_mb in by_policy.items():
                found[scenario][name][policy]["peak_memory_mb"] = peak_mb
    return found | worst(answers.values())


def _build_all(
    scenario: Scenario, benches: Mapping[str, Bench], canvases: Tensor, report: Callable[[str], None]
) -> dict[str, Cascade]:
    cascades = {}
    for name, bench in benches.items():
        batches = _batches(scenario, bench, canvases)
        report(f"{scenario}: build {name}, batches {batches}")
        cascades[name] = bench.build(batches)
    return cascades


def _compare_in(
    scenario: Scenario, usual: UsualWay, cascades: Mapping[str, Cascade], canvases: Tensor
) -> dict[str, Any]:
    kind = cascades[REFERENCE].engines["low"].runtime.device.type
    block = SINGLE_BLOCK if scenario == "single_stream" else OFFLINE_BLOCK[kind]
    set_usual_rate(usual, torch.cat([part[:USUAL_IMAGES] for part in canvases.split(block)]))
    found = _measure(scenario, {USUAL: usual, **cascades}, canvases, block, MEASURED_S[kind])
    for name, cascade in cascades.items():
        found[name]["batch_size"] = {role: engine.batch_size for role, engine in cascade.engines.items()}
    return found


def _batches(scenario: Scenario, bench: Bench, canvases: Tensor) -> dict[Role, int]:
    if scenario == "single_stream":
        return dict.fromkeys(bench.sizes_px, 1)
    kind = bench.runtime.device.type
    engines = bench.build(dict.fromkeys(bench.sizes_px, BATCH[kind])).engines
    return choose_batches(engines, canvases[: CHOOSING_IMAGES[kind]])


def _measure(
    scenario: Scenario, systems: Mapping[str, System], canvases: Tensor, block_images: int, least_s: float
) -> dict[str, Any]:
    """Every system and policy on every block before the next block begins, in an order drawn anew.

    A turn begins with an image that is not timed, for the threads of whoever had the last one may still look
    for work. A fast system repeats its block, as often as makes up `least_s` over all its turns.
    """
    turns = [(system, policy) for system in systems for policy in NEEDS]
    one_by_one = scenario == "single_stream"
    blocks = canvases.split(block_images)
    taken: dict[tuple[str, PolicyName], list[Floats]] = {turn: [] for turn in turns}
    escalated = dict.fromkeys(turns, 0)
    repeats: dict[tuple[str, PolicyName], int] = {}
    for system, policy in turns:
        few = canvases[: WARM_UP_IMAGES[scenario]]
        run_block(systems[system], policy, few, one_by_one)
        once_s = run_block(systems[system], policy, few, one_by_one)[0].mean() * block_images / 1e3
        share_s = least_s / len(blocks) / len(NEEDS)
        repeats[system, policy] = min(MOST_REPEATS, math.ceil(share_s / once_s))
    rng = np.random.default_rng(0)
    for block in blocks:
        for index in rng.permutation(len(turns)):
            turn = system, policy = turns[index]
            images = block[:USUAL_IMAGES] if system == USUAL else block
            run_block(systems[system], policy, images[:1], one_by_one)
            for _ in range(repeats[turn]):
                latency_ms, answers = run_block(systems[system], policy, images, one_by_one)
                taken[turn].append(latency_ms)
                escalated[turn] += int(answers.escalated.sum())
    return {
        system: {
            policy: _summarise(scenario, taken[system, policy], escalated[system, policy]) for policy in NEEDS
        }
        for system in systems
    }


def _summarise(scenario: Scenario, blocks: list[Floats], escalated: int) -> dict[str, Any]:
    latency_ms = np.concatenate(blocks)
    thirds = [float(np.mean(part)) for part in np.array_split(latency_ms, 3)]
    summary = summarise_latency(latency_ms)
    return {
        "latency_ms": summary if scenario == "single_stream" else {"mean": summary["mean"]},
        "images_per_s": 1000 / summary["mean"],
        "escalation_rate": escalated / len(latency_ms),
        "spread": spread(thirds),
    }
