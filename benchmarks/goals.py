"""The goals that the project set itself, as ratios within one run, and whether they are met."""

from collections.abc import Mapping
from typing import Any

from pipeline.backends import NATIVE

Document = Mapping[str, Any]


def judge_goals(measured: Document) -> dict[str, dict[str, float]]:
    """By goal: the ratio, what is asked for, and met (1 or 0). What was not measured is left out.

    ceiling: the most that the ratio could be, where known: of inference if a pass were nothing but its matrix
    products at the processor's peak, of extraction if decoding and writing took what they take alone, of
    adaptive inference on a GPU if it took low and the share of high that it escalates.
    """
    goals = {**_inference_goals(measured["inference"]), **_gpu_goals(measured["inference"])}
    if "extraction" in measured:
        goals |= _extraction_goals(measured["extraction"])
    judged = {name: _judge(*goal) for name, goal in goals.items()} | _scale_goals(measured)
    ceilings = _ceilings(measured["inference"], measured.get("anatomy", {}))
    for name, ceiling in {**ceilings, **_offline_bounds(measured["inference"])}.items():
        if name in judged:
            judged[name]["ceiling"] = ceiling
    for name, roles in _our_extractions(measured.get("extraction", {})).items():
        for role, run in roles.items():
            if "ceiling" in run:
                judged[bare_over(role, name)]["ceiling"] = run["ceiling"]
    return judged


def _judge(ratio: float, asked: float, at_most: bool) -> dict[str, float]:
    met = ratio <= asked if at_most else ratio >= asked
    return {"ratio": ratio, ("at_most" if at_most else "at_least"): asked, "met": int(met)}


def overhead(policies: Document) -> float:
    """Adaptive over low + rate * high, of means."""
    low, high, adaptive = (
        policies[name]["latency_ms"]["mean"] for name in ("static_low", "static_high", "adaptive")
    )
    return float(adaptive / (low + policies["adaptive"]["escalation_rate"] * high))


def _inference_goals(inference: Document) -> dict[str, tuple[float, float, bool]]:
    single, offline = inference["single_stream"], inference["offline"]
    usual, eager = single["usual way float32"], single["eager float32"]
    goals: dict[str, tuple[float, float, bool]] = {}
    for precision, least in (("float32", 3.5), ("bfloat16", 5.5)):
        names = (f"{backend} {precision}" for backend in ("cudagraph", *NATIVE, "openvino"))
        name = next((name for name in names if name in single), None)
        if name is None:
            continue
        ours = single[name]
        goals |= {
            usual_over(name): (
                _mean(usual, "adaptive") / _mean(ours, "adaptive"),
                least,
                False,
            ),
            eager_over(name): (
                _mean(eager, "static_high") / _mean(ours, "static_high"),
                2.0,
                False,
            ),
            f"overhead over the ideal, one stream, {name}": (overhead(ours), 1.03, True),
            f"overhead over the ideal, offline, {name}": (overhead(offline[name]), 1.05, True),
        }
        if precision == "bfloat16":
            ratio = _mean(usual, "static_high") / _mean(ours, "adaptive")
            goals[usual_high_over(name)] = (ratio, 12.0, False)
    return goals


def usual_over(name: str) -> str:
    return f"adaptive, one stream: usual way over {name}"


def eager_over(name: str) -> str:
    return f"static high, one stream: eager float32 over {name}"


def usual_high_over(name: str) -> str:
    return f"usual way's static high over {name} adaptive, one stream"


def _ceilings(inference: Document, anatomy: Document) -> dict[str, float]:
    single = inference["single_stream"]
    usual, eager = single["usual way float32"], single["eager float32"]
    found: dict[str, float] = {}
    for name, parts in anatomy.items():
        adaptive_ms = least_ms(parts, usual["adaptive"]["escalation_rate"])
        found[usual_over(name)] = _mean(usual, "adaptive") / adaptive_ms
        found[eager_over(name)] = _mean(eager, "static_high") / parts["high"]["least_ms"]
        found[usual_high_over(name)] = _mean(usual, "static_high") / adaptive_ms
        same = single.get(f"eager {name.split()[1]}")
        for role in ("low", "high") if same else ():
            found[captured_over(role, name)] = _mean(same, f"static_{role}") / parts[role]["least_ms"]
    return found


def least_ms(anatomy: Document, escalation_rate: float) -> float:
    """Adaptive, per image, if nothing but matrix products took time, and they ran at the processor's peak."""
    return float(anatomy["low"]["least_ms"] + escalation_rate * anatomy["high"]["least_ms"])


def _gpu_goals(inference: Document) -> dict[str, tuple[float, float, bool]]:
    """Of a captured pass, in the precision of the eager one that it is held against."""
    single, offline = inference["single_stream"], inference["offline"]
    goals: dict[str, tuple[float, float, bool]] = {}
    for precision in ("float32", "bfloat16"):
        captured, eager = f"cudagraph {precision}", f"eager {precision}"
        if captured not in single:
            continue
        for role in ("low", "high") if eager in single else ():
            ratio = _mean(single[eager], f"static_{role}") / _mean(single[captured], f"static_{role}")
            goals[captured_over(role, captured)] = (ratio, 3.0, False)
        ratio = _mean(offline[captured], "static_high") / _mean(offline[captured], "adaptive")
        goals[offline_over(captured)] = (ratio, 2.5, False)
    return goals


def captured_over(role: str, name: str) -> str:
    return f"static_{role}, one stream: eager {name.split()[1]} over {name}"


def offline_over(name: str) -> str:
    return f"offline, {name}: static high over adaptive"


def _offline_bounds(inference: Document) -> dict[str, float]:
    """Of the captured engines: 1 / (low / high + rate), by the static passes of the same run."""
    offline = inference["offline"]
    captured = {name: item for name, item in offline.items() if name.startswith("cudagraph")}
    return {
        offline_over(name): overhead(item) * _mean(item, "static_high") / _mean(item, "adaptive")
        for name, item in captured.items()
    }


def _extraction_goals(extraction: Document) -> dict[str, tuple[float, float, bool]]:
    goals: dict[str, tuple[float, float, bool]] = {}
    usual = extraction["timm DataLoader + hooks"]
    for name, roles in _our_extractions(extraction).items():
        for role, run in roles.items():
            rate = run["extraction_images_per_s"]
            goals[bare_over(role, name)] = (
                run["extraction_over_bare_forward"],
                0.95,
                False,
            )
            goals[f"extraction over the usual way, {role}, {name}"] = (
                rate / usual[role]["extraction_images_per_s"],
                2.5,
                False,
            )
    return goals


def _scale_goals(measured: Document) -> dict[str, dict[str, float]]:
    runs = list(measured.get("extraction", {}).get("scale", {}).values())
    if len(runs) < 2:
        return {}
    memory, rate = (runs[-1][key] / runs[0][key] for key in ("peak_memory_mb", "images_per_s"))
    within = {"ratio": rate, "at_least": 0.95, "at_most": 1.05, "met": int(0.95 <= rate <= 1.05)}
    return {
        "peak memory, most images over fewest": _judge(memory, 1.10, True),
        "rate, most images over fewest": within,
    }


def bare_over(role: str, name: str) -> str:
    return f"extraction over bare forward, {role}, {name}"


def _our_extractions(extraction: Document) -> dict[str, Document]:
    return {name: item for name, item in extraction.items() if "float" in name and isinstance(item, Mapping)}


def _mean(policies: Document, name: str) -> float:
    return float(policies[name]["latency_ms"]["mean"])
