"""`adaptive-vit recommend`: which threshold keeps to a limit on accuracy or on latency."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.findings import policies_of
from pipeline.fit import fit, read_samples
from pipeline.frontier import Prices
from pipeline.learned import NAME
from pipeline.params.fit import FitParams, ThresholdParams
from pipeline.params.replay import SCENARIOS
from pipeline.policy import Policy, proxy_of, read_policy, score
from pipeline.proxies import PROXIES
from pipeline.recommend import Limits, Recommendation, confidence_each, recommend
from pipeline.samples import join_proxies
from pipeline.tables import read_fingerprint
from stages.common import ParamsFile, path_option, stage_command

ANY = "any"


@stage_command("fit")
@click.option("--max-accuracy-drop", type=click.FloatRange(0), help="Percentage points below always-high.")
@click.option("--max-latency-ms", type=click.FloatRange(0, min_open=True), help="Mean per image.")
@click.option(
    "--proxy",
    type=click.Choice([*PROXIES, NAME, ANY]),
    help=f"Whose threshold; {ANY}: of whichever does best on the calibration images. [default: the policy's]",
)
@click.option("--scenario", type=click.Choice(SCENARIOS), default=SCENARIOS[0], show_default=True)
@path_option("low", "data/embeddings/low", "Folder of the low embeddings.")
@path_option("deltas", "data/deltas.parquet", "Table of deltas.")
@path_option("policy", "models/policy.json", "Policy whose proxy is used where none is named.")
@path_option("replay", "metrics/replay.json", "Measured costs.")
def main(
    params: ParamsFile,
    max_accuracy_drop: float | None,
    max_latency_ms: float | None,
    proxy: str | None,
    scenario: str,
    replay: Path,
    **paths: Path,
) -> None:
    """Name a threshold, what it costs and loses, its certificate, and the command that sets it.

    It is chosen on the calibration images (from which `learned` also learned, so it flatters itself there);
    what is said of it comes from the evaluation images. Where the weights know no classes, agreement with
    always-high stands for accuracy.
    """
    if max_accuracy_drop is None and max_latency_ms is None:
        raise click.UsageError("name a limit: --max-accuracy-drop POINTS, --max-latency-ms MS, or both")
    settings = params.section("fit", FitParams)
    measured = _scenario(replay, scenario)
    names = [*PROXIES, NAME] if proxy == ANY else [proxy or read_policy(paths["policy"]).proxy]
    policies = {name: _fit(paths["low"], paths["deltas"], settings, name) for name in names}
    samples = join_proxies(
        paths["low"], paths["deltas"], {name: proxy_of(policy) for name, policy in policies.items()}
    )
    scores = {name: score(samples[name].to_numpy(), policy.direction) for name, policy in policies.items()}
    limits = Limits(None if max_accuracy_drop is None else max_accuracy_drop / 100, max_latency_ms)
    confidence = settings.threshold.confidence
    found = recommend(
        samples, scores, _prices(measured), limits, confidence, settings.bootstrap, settings.seed
    )
    if found is None:
        low, high = (_mean_ms(measured, f"static_{role}") for role in ("low", "high"))
        raise PipelineError(
            f"no threshold of {' or '.join(policies)} keeps to these limits on the calibration images; "
            f"static low takes {low:.2f} ms, static high {high:.2f} ms; allow more, or try --proxy {ANY}"
        )
    click.echo("\n".join(_lines(found, policies[found.proxy], measured, scenario, confidence, limits)))


def _fit(low: Path, deltas: Path, settings: FitParams, proxy: str) -> Policy:
    """What the fit stage would make of this proxy, but for the threshold.

    Never the policy on disk: a certified one learned from fewer images than the command that is printed does.
    """
    rule = ThresholdParams(rule="escalation_rate", value=0.0, confidence=settings.threshold.confidence)
    changed = settings.model_copy(update={"proxy": proxy, "threshold": rule, "bootstrap": 100})
    return fit(read_samples(low, deltas, changed), changed, read_fingerprint(deltas)).policy


def _scenario(replay: Path, name: str) -> dict[str, Any]:
    document = read_json(replay)
    if name not in document:
        raise PipelineError(f"{replay}: scenario {name} was not replayed; it holds {', '.join(document)}")
    found: dict[str, Any] = document[name]
    return found


def _prices(measured: dict[str, Any]) -> Prices:
    means = {name: item["latency_ms"]["mean"] for name, item in policies_of(measured).items()}
    return Prices(means, measured["adaptive"]["escalation_rate"])


def _mean_ms(measured: dict[str, Any], policy: str) -> float:
    return float(measured[policy]["latency_ms"]["mean"])


def _lines(
    found: Recommendation,
    policy: Policy,
    measured: dict[str, Any],
    scenario: str,
    confidence: float,
    limits: Limits,
) -> list[str]:
    chosen = f"{100 * found.calibration_drop:+.2f}"
    drop, low, high = (f"{100 * value:+.2f}" for value in found.drop)
    than_high = f"{found.speedup:.2f}× as fast as always-high (by the last replay)"
    if found.speedup <= 1:
        than_high += "; static high is no slower, and loses nothing"
    lines = f"""{policy.proxy}, {scenario}: escalate {found.escalation_rate:.1%} of the images
  calibration images, which chose it: {chosen} points of {found.quality} lost against always-high
  evaluation images: {found.quality} {found.reached:.2%}; {drop} [{low}, {high}] points lost
  cost: {found.latency_ms:.2f} ms per image, {than_high}
  certificate: with confidence {confidence}, at most {found.risk_bound:.4f} stay low and are harmed
    ({found.harmful} of {found.images} evaluation images, which chose nothing)"""
    return [
        *lines.splitlines(),
        *_against_mid(found, measured),
        f"  set it: dvc exp run {_settings(found, policy)}",
        *_promise(found, confidence, limits),
    ]


def _promise(found: Recommendation, confidence: float, limits: Limits) -> list[str]:
    """How to have the limit promised, for some more escalation; agreement is promised by rule risk."""
    if not limits.drop:
        return []
    rule = "accuracy_drop" if found.quality == "accuracy" else "risk"
    settings = (
        f"-S fit.proxy={found.proxy} -S fit.threshold.rule={rule} -S fit.threshold.value={limits.drop:g}"
    )
    command = f"  have the limit certified: dvc exp run {settings}"
    if found.tried == 1:
        return [command]
    needed = confidence_each(confidence, found.tried)
    why = (
        f"    (images that certify also chose it among {found.tried} signals: certified at {needed:.2%}, "
        f"the limit holds with confidence {confidence})"
    )
    return [f"{command} -S fit.threshold.confidence={needed!r}", why]


def _against_mid(found: Recommendation, measured: dict[str, Any]) -> list[str]:
    """A static policy in between may do better than any cascade."""
    mid = measured.get("static_mid")
    if not mid or found.quality not in mid:
        return []
    ahead = mid[found.quality] >= found.reached and mid["latency_ms"]["mean"] <= found.latency_ms
    verdict = "AHEAD of it: cheaper and no worse" if ahead else "not ahead of it in both"
    return [f"  static mid: {mid[found.quality]:.2%} at {_mean_ms(measured, 'static_mid'):.2f} ms, {verdict}"]


def _settings(found: Recommendation, policy: Policy) -> str:
    if abs(found.threshold) == np.finfo(np.float64).max:
        rule, value = "escalation_rate", float(found.threshold < 0)
    else:
        rule, value = "fixed", policy.direction * found.threshold
    return f"-S fit.proxy={found.proxy} -S fit.threshold.rule={rule} -S fit.threshold.value={value!r}"


if __name__ == "__main__":
    main()
