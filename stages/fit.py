"""Fit the proxy to the oracle and draw the line above which an image is escalated."""

from pathlib import Path
from typing import Any

import click

from pipeline.certify import describe_ground, describe_promise
from pipeline.costs import UNSTABLE, are_stable, read_costs
from pipeline.files import read_json, write_csv, write_json
from pipeline.fit import conditions, fit, read_samples
from pipeline.machine import describe_machine
from pipeline.params.fit import FitParams
from pipeline.policy import ALWAYS_ESCALATE, NEVER_ESCALATE, write_policy
from pipeline.tables import read_fingerprint
from pipeline.timing import FEWEST_IMAGES, MOST_CHANCE
from stages.common import ParamsFile, path_option, stage_command


@stage_command("fit")
@path_option("low", "data/embeddings/low", "Folder of the low embeddings.")
@path_option("deltas", "data/deltas.parquet", "Table of deltas.")
@path_option("profile", "metrics/profile.json", "Measured costs, of adaptive-vit profile.")
@path_option("policy", "models/policy.json", "Policy to write.")
@path_option("metrics", "metrics/fit.json", "Metrics to write.")
@path_option("plots", "metrics/plots", "Folder for proxy_delta.csv and deferral.csv.")
def main(
    params: ParamsFile, low: Path, deltas: Path, profile: Path, policy: Path, metrics: Path, plots: Path
) -> None:
    """Learn direction, calibration and threshold on the calibration split; judge on the evaluation split."""
    settings = params.section("fit", FitParams)
    fingerprint, costs = read_fingerprint(deltas), None
    if settings.threshold.rule == "latency_budget":
        costs = read_costs(profile, conditions(fingerprint), describe_machine())
        if not are_stable(read_json(profile)):
            click.echo(f"Warning: {profile}: {UNSTABLE}", err=True)
    fitted = fit(read_samples(low, deltas, settings), settings, fingerprint, costs)
    for name, columns in fitted.plots.items():
        write_csv(plots / f"{name}.csv", columns.to_dict(as_series=False))
    write_json(metrics, fitted.metrics)
    write_policy(policy, fitted.policy)
    for warning in fitted.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(_sentence(fitted.metrics, settings))


def _sentence(metrics: dict[str, Any], settings: FitParams) -> str:
    judged = metrics["evaluation"]
    return "\n".join(
        [
            *_certificate(metrics),
            f"fit: threshold {_threshold(metrics['threshold'])}; "
            f"evaluation escalates {judged['escalation_rate']:.4f}, agreement {judged['agreement']:.4f}, "
            + _compare(judged["agreement_over_random"], judged["images"] >= FEWEST_IMAGES),
            f"fit: {settings.proxy} on {settings.oracle}: "
            + _verdict(judged["gain_over_random"], bool(metrics["told"])),
        ]
    )


def _threshold(value: float) -> str:
    """The stand-ins for the two ends are no numbers to read."""
    ends = {NEVER_ESCALATE: "above all scores", ALWAYS_ESCALATE: "below all scores"}
    return ends.get(value, f"{value:.6g}")


def _certificate(metrics: dict[str, Any]) -> list[str]:
    found, risk = metrics["certificate"], metrics["evaluation"]["certified_risk"]
    if not found or not found["certified"]:
        return []
    sentence = (
        f"fit: certified: {describe_promise(found)} "
        f"({describe_ground(found)}; had this threshold been fixed beforehand, its bound would be "
        f"{found['risk_bound']:.4f}); "
        f"evaluation {risk['value']:.4f} [{risk['ci_low']:.4f}, {risk['ci_high']:.4f}]"
    )
    return [sentence]


def _verdict(gain: dict[str, float] | None, told: bool) -> str:
    if gain is None:
        return "the oracle is the same for every evaluation image, so no order of escalation is better"
    return _compare(gain, told) + " (0 random, 1 oracle)"


def _compare(gain: dict[str, float], told: bool) -> str:
    """A gain over random escalation; of too few images nothing is claimed."""
    low, high = gain["ci_low"], gain["ci_high"]
    beats = low > 0 and gain.get("chance", 0) <= MOST_CHANCE
    worse = high < 0 and gain.get("chance_of_no_more", 0) <= MOST_CHANCE
    says = "beats" if beats else "is WORSE than" if worse else "does NOT beat"
    if not told:
        says = "cannot be told from"
    chance = (
        f", as random escalation does in {100 * gain['chance']:.1f} % of cases" if "chance" in gain else ""
    )
    return f"{says} random escalation: {gain['value']:+.4f} [{low:+.4f}, {high:+.4f}]{chance}"


if __name__ == "__main__":
    main()
