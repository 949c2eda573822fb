"""What the metrics say, in tables and sentences that a terminal, a README and the report share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.certify import describe_ground, describe_promise
from pipeline.measured import Document, Metrics
from pipeline.wording import DASH, Grid, milliseconds, number, percent, points, times, words

SCENARIOS = {
    "single_stream": "Single stream: one image at a time",
    "offline": "Offline: full batches",
}
TIMED = "transfer, resize, normalisation, passes, proxy, decision, answer on the host; not the decoding"
# What chooses as many images as the adaptive policy did, and is compared by its answers only.
RIVALS = {"random": "random, as many", "oracle": "oracle, as many"}
MEASURING_ERROR = "measuring error: beats the ideal bound"


class Verdict(NamedTuple):
    """A plain sentence, and whether it says what one would hope for."""

    text: str
    holds: bool


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


def is_at_bound(scenario: Document) -> bool:
    """Nominally beyond the bound, by less than the interval tells apart."""
    return is_within_bound(scenario) and scenario.get("overhead_vs_ideal", 1) < 1


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
        return " (measuring error)"
    return "" if is_stable(scenario) else " (unstable)"


def describe_scenario(name: str, scenario: Document) -> str:
    size = f"{number(scenario.get('images'), 0)} images in {number(scenario.get('blocks'), 0)} blocks"
    batches = "".join(f", {role} batch {count}" for role, count in scenario.get("batch_size", {}).items())
    return f"{SCENARIOS[name]}; {size}{batches}{'' if is_stable(scenario) else '; UNSTABLE'}"


def describe_speed(scenario: Document) -> list[str]:
    """Speed-up, bound and stability; a speed-up beyond the bound is named an error, without its value."""
    bound = times(scenario.get("speedup_bound"))
    if not is_within_bound(scenario):
        lines = [f"Speed-up over static high: {MEASURING_ERROR} of {bound}"]
    else:
        within = "yes, to measuring error" if is_at_bound(scenario) else "yes"
        overhead = f"overhead over the ideal: {_overhead(scenario)}"
        lines = [
            f"Speed-up over static high: {_speedup(scenario)}",
            f"Ideal bound: {bound}; {overhead}; within the bound: {within}",
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
    """The metrics hold ratios to the ideal time; read as what comes on top of it."""
    interval = _interval(scenario, "overhead_ci_low", "overhead_ci_high", _excess)
    return f"{_excess(scenario.get('overhead_vs_ideal'))}{interval}"


def _excess(ratio: float | None) -> str:
    return DASH if ratio is None else f"{100 * (ratio - 1):.1f} %"


def _interval(document: Document, low: str, high: str, text: Any) -> str:
    if low not in document or high not in document:
        return ""
    return f" (interval {text(document[low])} to {text(document[high])})"


def describe_engine(engine: Document | None) -> list[str]:
    """How far the engine's answers lie from those of eager float32; nothing where it was not compared."""
    if not engine:
        return []
    inside = "within" if engine["within_tolerance"] else "BEYOND"
    error, tolerance = engine["largest_error"], engine["tolerance"]
    line = (
        f"Engine against eager float32 on {number(engine['images'], 0)} images: "
        f"{percent(engine['decision_agreement'])} of the decisions equal; largest error "
        f"{error:.1e} of the largest value, {inside} the tolerance {tolerance:.0e}."
    )
    return [line]


def judge_fit(fit: Document) -> list[Verdict]:
    """Is the proxy worth its place: does it find what the oracle would, and does agreement gain by it?"""
    evaluation = fit["evaluation"]
    verdicts = [
        _judge_order(evaluation.get("gain_over_random"), fit.get("beats_random") == 1),
        _judge_agreement(evaluation),
    ]
    certificate = fit.get("certificate")
    return [*verdicts, _judge_certificate(certificate, evaluation)] if certificate else verdicts


def _judge_certificate(certificate: Document, evaluation: Document) -> Verdict:
    """The promise, what it rests on, and what became of it on images that had no part in it."""
    promise, ground = describe_promise(certificate), describe_ground(certificate)
    if not certificate["certified"]:
        return Verdict(f"NOT certified: {promise} ({ground}); every image is escalated.", False)
    risk = evaluation["certified_risk"]
    found = f"{percent(risk['value'])}{_interval(risk, 'ci_low', 'ci_high', percent)}"
    return Verdict(
        f"Certified: {promise} ({ground}, bound {percent(certificate['risk_bound'])}); "
        f"on the evaluation images {found}.",
        risk["ci_low"] <= certificate["alpha"],
    )


def _judge_order(gain: Document | None, beats_random: bool) -> Verdict:
    if gain is None:
        return Verdict(
            "The proxy does NOT beat random escalation on this data: gain undefined, since the oracle is "
            "the same for every image.",
            False,
        )
    measured = f"gain {number(gain.get('value'))}{_interval(gain, 'ci_low', 'ci_high', number)}"
    if beats_random:
        found = "beats random escalation at finding what the oracle would"
    else:
        found = "does NOT beat random escalation on this data"
    return Verdict(f"The proxy {found}: {measured}, where 0 is random and 1 the oracle.", beats_random)


def _judge_agreement(evaluation: Document) -> Verdict:
    agreement, random = evaluation.get("agreement"), evaluation.get("random_agreement")
    difference = evaluation.get("agreement_over_random")
    if difference is None:
        holds = agreement is not None and random is not None and agreement > random
        measured = ""
    else:
        holds = difference["ci_low"] > 0
        measured = f", {points(difference['value'])}{_interval(difference, 'ci_low', 'ci_high', points)}"
    return Verdict(
        f"Escalating {percent(evaluation.get('escalation_rate'))} gives agreement {percent(agreement)}: "
        f"{'above' if holds else 'NOT above'} random escalation's {percent(random)}{measured}; "
        f"the oracle's is {percent(evaluation.get('oracle_agreement'))}.",
        holds,
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
        ("timed", TIMED),
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
