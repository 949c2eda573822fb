"""The benchmark's results as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.usual import USUAL
from pipeline.wording import DASH, milliseconds, number, words

Document = Mapping[str, Any]
TITLES = {
    "single_stream": "One stream, one image at a time: mean ms per image (p50, p90; peak MB)",
    "offline": "Offline, in batches: mean ms per image (images/s; peak MB)",
}

WANDERS, MOST_SPREAD = "~", 0.1
SPREAD = f"{WANDERS}: the thirds of what was measured differ by more than {100 * MOST_SPREAD:.0f} %."
CEILINGS = (
    "At most: of inference, if a pass were nothing but its matrix products at the processor's peak; of "
    "extraction, if decoding and writing took the cores for as long as each does alone; of adaptive over "
    "static high, if it took low and the share of high that it escalates."
)


def format_bench(measured: Document) -> str:
    """Tables of inference, extraction and goals, and the conditions; ends in a newline."""
    parts: list[str] = []
    for scenario, title in TITLES.items():
        parts += [f"**{title}**", ""]
        rows = _inference_rows(measured["inference"], scenario)
        parts += [*rows, ""]
        parts += [_escalated(measured["inference"][scenario]), ""]
        if any(WANDERS in row for row in rows):
            parts += [SPREAD, ""]
    if "extraction" in measured:
        parts += ["**Extraction: images/s**", "", *_extraction_rows(measured["extraction"]), ""]
    if "anatomy" in measured:
        parts += [
            "**A pass of one image, and what it is made of: ms**",
            "",
            *_anatomy_rows(measured["anatomy"]),
        ]
        parts += ["", *_changes(measured["anatomy"]), ""]
        batches = _batch_rows(measured["anatomy"])
        parts += ["**A pass in batches: ms per image, by the size of the batch**", "", *batches, ""]
    parts += ["**Goals, as ratios within this run**", "", *_goal_rows(measured["goals"]), ""]
    if any("ceiling" in goal for goal in measured["goals"].values()):
        parts += [CEILINGS, ""]
    return "\n".join([*parts, _conditions(measured["conditions"])]) + "\n"


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return [lines[0], "|---|" + "---:|" * (len(header) - 1), *lines[1:]]


def _inference_rows(inference: Document, scenario: str) -> list[str]:
    """One stream with its answers against the reference's, offline with the batches."""
    systems = inference[scenario]
    policies = [name for name in next(iter(systems.values())) if name != "batch_size"]
    single = scenario == "single_stream"

    def rows() -> Iterator[tuple[str, ...]]:
        for system, found in systems.items():
            last = _answers(inference, system) if single else (_batches(found),)
            yield (system, *(_cell(found[name], name) for name in policies), *last)

    last = ("largest error", "decisions as eager float32") if single else ("batches",)
    return _table(("system", *map(words, policies), *last), rows())


def _answers(inference: Document, system: str) -> tuple[str, str]:
    error = inference.get("largest_error", {}).get(system)
    same = inference["decision_agreement"].get(system)
    return (
        DASH if error is None else f"{error:.0e}",
        DASH if same is None else f"{100 * same:.1f} %",
    )


def _batches(found: Document) -> str:
    sizes = found.get("batch_size", {})
    return "/".join(str(sizes[role]) for role in ("low", "mid", "high")) if sizes else DASH


def _escalated(systems: Document) -> str:
    """What adaptive escalated; one figure where all systems are equal."""
    rates = {name: f"{100 * found['adaptive']['escalation_rate']:.1f} %" for name, found in systems.items()}
    if len(different := set(rates.values())) == 1:
        return f"Adaptive escalates {different.pop()}."
    usual, others = rates.pop(USUAL), sorted(set(rates.values()), key=lambda rate: float(rate.split()[0]))
    ends = " to ".join(dict.fromkeys((others[0], others[-1])))
    return f"Adaptive escalates {usual} in the usual way, {ends} in the others."


def _cell(policy: Document, name: str) -> str:
    latency_ms, peak_mb = policy["latency_ms"], policy.get("peak_memory_mb")
    more = ", ".join(milliseconds(latency_ms[key]) for key in ("p50", "p90") if key in latency_ms)
    inside = more or f"{number(policy['images_per_s'], 0)} images/s"
    peak = f"; {number(peak_mb, 0)} MB" if peak_mb is not None else ""
    # Thirds of adaptive inference differ by how many of their images are escalated.
    mark = WANDERS if name != "adaptive" and policy.get("spread", 0) > MOST_SPREAD else ""
    return f"{mark}{milliseconds(latency_ms['mean'])} ({inside}{peak})"


def _extraction_rows(extraction: Document) -> list[str]:
    def rows() -> Iterator[tuple[str, ...]]:
        for name, roles in extraction.items():
            if not isinstance(roles, Mapping) or "low" not in roles:
                continue
            runs = [roles[role] for role in ("low", "high")]
            over = [number(run.get("extraction_over_bare_forward")) for run in runs]
            yield (name, *(number(run["extraction_images_per_s"], 0) for run in runs), *over)
        for count, run in extraction["scale"].items():
            rate, peak = number(run["images_per_s"], 0), number(run["peak_memory_mb"], 0)
            yield (
                f"{int(count):,} images, {extraction['scale_runtime']} ({peak} MB)",
                rate,
                DASH,
                DASH,
                DASH,
            )

    return _table(("system", "low", "high", "low over bare forward", "high over bare forward"), rows())


def _goal_rows(goals: Document) -> list[str]:
    def rows() -> Iterator[tuple[str, ...]]:
        for name, goal in goals.items():
            met = "yes" if goal["met"] else "**no**"
            yield name, number(goal["ratio"], 3), _asked(goal), met, number(goal.get("ceiling"))

    return _table(("goal", "measured", "asked", "met", "at most"), rows())


def _asked(goal: Document) -> str:
    least, most = goal.get("at_least"), goal.get("at_most")
    if least is None:
        return f"≤ {most}"
    return f"≥ {least}" if most is None else f"{least} to {most}"


def _anatomy_rows(anatomy: Document) -> list[str]:
    roles = [(f"{name}, {role}", found[role]) for name, found in anatomy.items() for role in ("low", "high")]
    passes = [(name, found, found["least_ms"]) for name, found in roles]
    passes += [
        (f"{name}, per image of {found['batch']['batch_size']}", found["batch"], found["least_ms"])
        for name, found in roles
        if "batch" in found
    ]

    def rows() -> Iterator[tuple[str, ...]]:
        for name, found, least_ms in passes:
            parts = [milliseconds(value) for value in found["parts_ms"].values()]
            shown = milliseconds(found["pass_ms"]), *parts, milliseconds(least_ms)
            yield (name, *shown, f"{100 * least_ms / found['pass_ms']:.0f} %")

    kinds = roles[0][1]["parts_ms"]
    return _table(("engine", "pass", *kinds, "products at the peak", "peak over pass"), rows())


def _batch_rows(anatomy: Document) -> list[str]:
    roles = {f"{name}, {role}": found[role] for name, found in anatomy.items() for role in ("low", "high")}
    by_size = {
        name: {"1": found["pass_ms"], **dict(reversed(found["batch_ms_per_image"].items()))}
        for name, found in roles.items()
    }

    def rows() -> Iterator[tuple[str, ...]]:
        for name, costs in by_size.items():
            yield name, *(milliseconds(value) for value in costs.values())

    return _table(("engine", *next(iter(by_size.values()))), rows())


def _changes(anatomy: Document) -> Iterator[str]:
    for name, found in anatomy.items():
        times = ", ".join(f"{which} {milliseconds(value)}" for which, value in found["changing_ms"].items())
        peak = f"{found['peak_gflop_per_s']:.0f} GFLOP/s"
        yield f"- {name}: matrix products reach {peak} at most; an answer takes {times} ms."


def _conditions(found: Document) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    images = f"{found['images']} images"
    if "offline_images" in found:
        images += f" in one stream, {found['offline_images']:,} offline"
        images += f" (the usual way {found['usual_offline_images']:,})"
    return (
        f"Conditions: {found['gpu'] or found['processor']}, {found['threads']} threads, {found['model']}, "
        f"{images}, {100 * found['escalation_rate']:.1f} % to be escalated, low/mid/high "
        f"{'/'.join(map(str, found['sizes_px'].values()))} px; python {found['python']}, {versions}; "
        f"commit {found['commit']}."
    )
