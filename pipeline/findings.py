"""What the replay says, in tables and sentences that a terminal, a README and the report share."""

from collections.abc import Mapping

from pipeline.measured import Document, Metrics
from pipeline.timing import FEWEST_BLOCKS, WINDOWS
from pipeline.wording import DASH, Grid, interval_of, milliseconds, number, percent, times, words

SCENARIOS = {
    "single_stream": "Single stream: one image at a time",
    "offline": "Offline: full batches",
}
# What chooses as many images as the adaptive policy did, and is compared by its answers only.
RIVALS = {"random": "random, as many", "oracle": "oracle, as many"}


def policies_of(scenario: Document) -> dict[str, Document]:
    """The policies in the order of the file; whatever else the scenario holds is left out."""
    return {
        name: item for name, item in scenario.items() if isinstance(item, Mapping) and "latency_ms" in item
    }


def scenarios_of(metrics: Metrics) -> dict[str, Document]:
    """The replayed scenarios, single stream first."""
    return {name: metrics.replay[name] for name in SCENARIOS if name in metrics.replay}


def is_within_bound(scenario: Document) -> bool:
    """A result nobody compared with the bound counts as one that beats it."""
    return scenario.get("within_bound") == 1


def why_beyond_bound(scenario: Document) -> str:
    """In two words, of a speed-up that beats the bound."""
    few = "within_bound" not in scenario and scenario.get("blocks", FEWEST_BLOCKS) < FEWEST_BLOCKS
    return "too few blocks" if few else "measuring error"


def is_at_bound(scenario: Document) -> bool:
    """Nominally beyond the bound, by less than the interval tells apart."""
    return is_within_bound(scenario) and scenario.get("overhead_vs_ideal", 1) < 1


def is_stable(scenario: Document) -> bool:
    return scenario.get("stable") == 1


def is_unstable(scenario: Document) -> bool:
    """Not so of too few blocks, which tell nothing of it."""
    return not is_stable(scenario) and not _is_untold(scenario)


def _is_untold(scenario: Document) -> bool:
    return bool(scenario.get("blocks", FEWEST_BLOCKS) < WINDOWS)


def policy_grid(scenario: Document) -> Grid:
    header = (
        "policy",
        "mean ms",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "images/s",
        "escalated",
        "agreement",
        "accuracy",
        "peak MB",
    )
    rows = [_policy_row(name, item, scenario) for name, item in policies_of(scenario).items()]
    rows += [_rival_row(title, scenario[name]) for name, title in RIVALS.items() if name in scenario]
    return Grid(header, tuple(rows))


def _policy_row(name: str, policy: Document, scenario: Document) -> tuple[str, ...]:
    latency_ms = policy["latency_ms"]
    return (
        words(name) + _mark(name, scenario),
        *(milliseconds(latency_ms.get(key)) for key in ("mean", "p50", "p90", "p99")),
        number(policy.get("images_per_s"), 1),
        *(percent(policy.get(key)) for key in ("escalation_rate", "agreement", "accuracy")),
        number(policy.get("peak_memory_mb"), 0),
    )


def _rival_row(title: str, rival: Document) -> tuple[str, ...]:
    answers = (percent(rival.get(key)) for key in ("escalation_rate", "agreement", "accuracy"))
    return title, *[DASH] * 5, *answers, DASH


def _mark(name: str, scenario: Document) -> str:
    """What keeps a row from being taken at face value."""
    if name != "adaptive":
        return ""
    if not is_within_bound(scenario):
        return f" ({why_beyond_bound(scenario)})"
    return " (unstable)" if is_unstable(scenario) else ""


def describe_scenario(name: str, scenario: Document) -> str:
    size = f"{number(scenario.get('images'), 0)} images in {number(scenario.get('blocks'), 0)} blocks"
    batches = "".join(f", {role} batch {count}" for role, count in scenario.get("batch_size", {}).items())
    return f"{SCENARIOS[name]}; {size}{batches}{'; UNSTABLE' if is_unstable(scenario) else ''}"


def describe_speed(scenario: Document) -> list[str]:
    """Speed-up, bound and stability; a speed-up beyond the bound is not told, but why it cannot be."""
    bound = times(scenario.get("speedup_bound"))
    if not is_within_bound(scenario):
        why = why_beyond_bound(scenario)
        lines = [f"Speed-up over static high: {why}: beats the ideal bound of {bound}"]
    else:
        within = "yes, to measuring error" if is_at_bound(scenario) else "yes"
        overhead = f"overhead over the ideal: {_overhead(scenario)}"
        lines = [
            f"Speed-up over static high: {_speedup(scenario)}",
            f"Ideal bound: {bound}; {overhead}; within the bound: {within}",
        ]
    if scenario.get("blocks", FEWEST_BLOCKS) < FEWEST_BLOCKS:
        lines.append(
            f"The intervals are of {number(scenario['blocks'], 0)} blocks alone, and so too narrow; "
            "replay more images"
        )
    lines.append(_stability(scenario))
    if scenario.get("decision_agreement", 1) < 1:
        lines.append(f"Decisions equal to those of fit: {percent(scenario['decision_agreement'])}")
    return lines


def _stability(scenario: Document) -> str:
    if is_stable(scenario):
        return "Stable: yes"
    if _is_untold(scenario):
        return "Stable: unknown, of so few blocks"
    return "UNSTABLE: the timing did not settle; measure again on an idle machine"


def _speedup(scenario: Document) -> str:
    speedup = scenario.get("speedup_vs_static_high", {})
    return f"{times(speedup.get('median'))}{interval_of(speedup, 'ci_low', 'ci_high', times)}"


def _overhead(scenario: Document) -> str:
    """The metrics hold ratios to the ideal time; read as what comes on top of it."""
    interval = interval_of(scenario, "overhead_ci_low", "overhead_ci_high", _excess)
    return f"{_excess(scenario.get('overhead_vs_ideal'))}{interval}"


def _excess(ratio: float | None) -> str:
    return DASH if ratio is None else f"{100 * (ratio - 1):.1f} %"


def describe_engine(engine: Document | None) -> list[str]:
    """How far the engine's answers lie from those of eager float32; nothing where it was not compared."""
    if not engine:
        return []
    inside = "within" if engine["within_tolerance"] else "BEYOND"
    error, tolerance = engine.get("largest_error"), engine["tolerance"]
    shown = "is no number" if error is None else f"{error:.1e} of the largest value"
    if "largest_error_role" in engine:
        shown += f" ({engine['largest_error_role']})"
    line = (
        f"Engine against eager float32 on {number(engine['images'], 0)} images: "
        f"{percent(engine['decision_agreement'])} of the decisions equal; largest error "
        f"{shown}, {inside} the tolerance {tolerance:.0e}."
    )
    return [line]
