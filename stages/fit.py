"""Fit the proxy to the oracle and draw the line above which an image is escalated."""

from pathlib import Path
from typing import Any

import click

from pipeline.files import write_csv, write_json
from pipeline.fit import fit, read_samples
from pipeline.params.fit import FitParams
from pipeline.policy import write_policy
from pipeline.tables import read_fingerprint
from stages.common import ParamsFile, path_option, stage_command


@stage_command("fit")
@path_option("low", "data/embeddings/low", "Folder of the low embeddings.")
@path_option("deltas", "data/deltas.parquet", "Table of deltas.")
@path_option("policy", "models/policy.json", "Policy to write.")
@path_option("metrics", "metrics/fit.json", "Metrics to write.")
@path_option("plots", "metrics/plots", "Folder for proxy_delta.csv and deferral.csv.")
def main(params: ParamsFile, low: Path, deltas: Path, policy: Path, metrics: Path, plots: Path) -> None:
    """Learn direction, calibration and threshold on the calibration split; judge on the evaluation split."""
    settings = params.section("fit", FitParams)
    fitted = fit(read_samples(low, deltas, settings), settings, read_fingerprint(deltas))
    for name, columns in fitted.plots.items():
        write_csv(plots / f"{name}.csv", columns.to_dict(as_series=False))
    write_json(metrics, fitted.metrics)
    write_policy(policy, fitted.policy)
    for warning in fitted.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(_sentence(fitted.metrics, settings))


def _sentence(metrics: dict[str, Any], settings: FitParams) -> str:
    judged = metrics["evaluation"]
    gain = judged["gain_over_random"]
    if gain is None:
        verdict = f"{settings.oracle} is the same for every evaluation image: no order of escalation is better"
    else:
        says = "beats" if metrics["beats_random"] else "does NOT beat"
        verdict = (
            f"{settings.proxy} {says} random escalation: gain {gain['value']:+.3f} "
            f"[{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}] (0 random, 1 oracle)"
        )
    return (
        f"fit: threshold {metrics['threshold']:.6g}, evaluation escalates {judged['escalation_rate']:.4f}, "
        f"agreement {judged['agreement']:.4f} (random {judged['random_agreement']:.4f})\nfit: {verdict}"
    )


if __name__ == "__main__":
    main()
