"""What the metrics say, in tables and sentences that a terminal, a README and the report share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import read_json

Document = Mapping[str, Any]

DASH = "–"
SCENARIOS = {
    "single_stream": "Single stream: one image at a time",
    "offline": "Offline: full batches",
}
MEASURING_ERROR = "measuring error: beats the ideal bound"


@dataclass(frozen=True)
class Metrics:
    """The metrics folder; None or empty where an optional file is absent."""

    replay: Document
    fit: Document
    environment: Document
    prepare: Document | None = None
    delta: Document | None = None
    profile: Document | None = None
    extract: Mapping[str, Document] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """A table of finished texts; the first column names the row, the others are right-aligned."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def require_file(path: Path, stage: str) -> Path:
    if not path.is_file():
        raise PipelineError(
            f"{path}: not found; stage {stage} writes it: run dvc repro, or adaptive-vit {stage}"
        )
    return path


def read_metrics(folder: Path) -> Metrics:
    """Read the metrics JSON files; raises PipelineError where replay, fit or environment is missing."""
    optional = {
        name: read_json(folder / f"{name}.json")
        for name in ("prepare", "delta", "profile")
        if (folder / f"{name}.json").is_file()
    }
    return Metrics(
        replay=read_json(require_file(folder / "replay.json", "replay")),
        fit=read_json(require_file(folder / "fit.json", "fit")),
        environment=read_json(require_file(folder / "environment.json", "replay")),
        extract={
            role: read_json(path)
            for role in ("low", "high")
            if (path := folder / "extract" / f"{role}.json").is_file()
        },
        **optional,
    )


def words(name: str) -> str:
    return name.replace("_", " ")


def number(value: float | None, decimals: int = 2) -> str:
    return DASH if value is None else f"{value:,.{decimals}f}"


def percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f} %"


def milliseconds(value_ms: float | None) -> str:
    """Two decimals, three below a millisecond: a GPU's forward pass must not round to 0.1."""
    return number(value_ms, 3 if value_ms is not None and value_ms < 1 else 2)


def times(ratio: float | None) -> str:
    return DASH if ratio is None else f"{ratio:.2f}×"


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


def is_stable(scenario: Document) -> bool:
    return scenario.get("stable") == 1


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
    return Grid(
        header, tuple(_policy_row(name, item, scenario) for name, item in policies_of(scenario).items())
    )


def _policy_row(name: str, policy: Document, scenario: Document) -> tuple[str, ...]:
    latency_ms = policy["latency_ms"]
    return (
        words(name) + _mark(name, scenario),
        *(milliseconds(latency_ms.get(key)) for key in ("mean", "p50", "p90", "p99")),
        number(policy.get("images_per_s"), 1),
        *(percent(policy.get(key)) for key in ("escalation_rate", "agreement", "accuracy")),
        number(policy.get("peak_memory_mb"), 0),
    )


def _mark(name: str, scenario: Document) -> str:
    """What keeps a row from being taken at face value."""
    if name != "adaptive":
        return ""
    if not is_within_bound(scenario):
        return " (measuring error)"
    return "" if is_stable(scenario) else " (unstable)"


def describe_scenario(name: str, scenario: Document) -> str:
    size = f"{number(scenario.get('images'), 0)} images in {number(scenario.get('blocks'), 0)} blocks"
    return f"{SCENARIOS[name]}; {size}{'' if is_stable(scenario) else '; UNSTABLE'}"


def describe_speed(scenario: Document) -> list[str]:
    """Speed-up, bound and stability; a speed-up beyond the bound is named an error, without its value."""
    bound = times(scenario.get("speedup_bound"))
    if not is_within_bound(scenario):
        lines = [f"Speed-up over static high: {MEASURING_ERROR} of {bound}"]
    else:
        lines = [
            f"Speed-up over static high: {_speedup(scenario)}",
            f"Ideal bound: {bound}; overhead over the ideal: {_overhead(scenario)}; within the bound: yes",
        ]
    lines.append(
        "Stable: yes"
        if is_stable(scenario)
        else "UNSTABLE: the timing did not settle; measure again on an idle machine"
    )
    if scenario.get("decision_agreement", 1) < 1:
        lines.append(f"Decisions equal to those of fit: {percent(scenario['decision_agreement'])}")
    return lines


def _speedup(scenario: Document) -> str:
    speedup = scenario.get("speedup_vs_static_high", {})
    return f"{times(speedup.get('median'))}{_interval(speedup, 'ci_low', 'ci_high', times)}"


def _overhead(scenario: Document) -> str:
    interval = _interval(scenario, "overhead_ci_low", "overhead_ci_high", percent)
    return f"{percent(scenario.get('overhead_vs_ideal'))}{interval}"


def _interval(document: Document, low: str, high: str, text: Any) -> str:
    if low not in document or high not in document:
        return ""
    return f" (interval {text(document[low])} to {text(document[high])})"


def describe_fit(fit: Document) -> str:
    """Whether the proxy is worth its place, plainly."""
    gain = fit["evaluation"].get("gain_over_random")
    if gain is None:
        measured = "gain undefined: the oracle gains nothing over random here either"
    else:
        interval = _interval(gain, "ci_low", "ci_high", number)
        measured = f"gain {number(gain.get('value'))}{interval} on a scale from 0, random, to 1, the oracle"
    verdict = "beats" if fit.get("beats_random") == 1 else "does NOT beat"
    return f"The proxy {verdict} random escalation on this data: {measured}."


def describe_agreement(fit: Document) -> str:
    evaluation = fit["evaluation"]
    return (
        f"Evaluation split: {percent(evaluation.get('escalation_rate'))} escalated, "
        f"agreement {percent(evaluation.get('agreement'))} "
        f"(random {percent(evaluation.get('random_agreement'))}, "
        f"oracle {percent(evaluation.get('oracle_agreement'))})."
    )


def list_conditions(metrics: Metrics) -> list[tuple[str, str]]:
    """What the numbers hold for, as (name, value); every value is known or an en dash."""
    environment = metrics.environment
    sizes_px = environment.get("sizes_px", {})
    versions = environment.get("versions", {})
    return [
        ("device", _device(environment)),
        ("processor", _joined(environment, "processor")),
        ("threads", f"{_joined(environment, 'threads')} (of {_joined(environment, 'cores')} cores)"),
        ("backend", _joined(environment, "backend")),
        ("precision", _joined(environment, "precision")),
        ("batch", _joined(environment, "batch_size")),
        ("resolutions", f"low {sizes_px.get('low', DASH)} px, high {sizes_px.get('high', DASH)} px"),
        ("images", _image_counts(metrics.fit)),
        ("weights", _weights(environment)),
        (
            "versions",
            ", ".join([f"python {environment.get('python', DASH)}", *map(" ".join, versions.items())]),
        ),
        ("system", _joined(environment, "os")),
        ("commit", _joined(environment, "commit")),
    ]


def _joined(document: Document, *keys: str) -> str:
    return ", ".join(str(document[key]) for key in keys if document.get(key)) or DASH


def _device(environment: Document) -> str:
    """With the GPU's name only where it did the work."""
    on_gpu = str(environment.get("device", "")).startswith("cuda")
    return _joined(environment, *(("device", "gpu") if on_gpu else ("device",)))


def _image_counts(fit: Document) -> str:
    splits = ("calibration", "evaluation")
    return ", ".join(f"{number(fit.get(split, {}).get('images'), 0)} {split}" for split in splits)


def _weights(environment: Document) -> str:
    digest = environment.get("weights_sha256", "")
    return _joined(environment, "weights") + (f" (sha256 {digest[:12]})" if digest else "")
