"""`adaptive-vit drift`: do new images look like those that the policy was fitted on?"""

import sys
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from pipeline.drift import Floats, check_conditions, check_enough, compare_scores, conclude, describe
from pipeline.embeddings import measure_proxy, read_set_fingerprint
from pipeline.errors import PipelineError
from pipeline.files import write_json
from pipeline.policy import Policy, proxy_of, read_policy, score
from pipeline.tables import read_fingerprint, read_table
from stages.common import ParamsFile, path_option, stage_command

SHIFTED = 3


@stage_command("fit")
@path_option("policy", "models/policy.json", "Policy that is to be applied to the new images (JSON).")
@path_option("deltas", "data/deltas.parquet", "Table of deltas (Parquet): it knows the calibration images.")
@path_option(
    "reference", "data/embeddings/low", "Folder of the low embeddings (Parquet) that the policy is from."
)
@click.option(
    "--new",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the new low embeddings (Parquet).",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Largest chance, 0 to 1, of an alarm where nothing has shifted.",
)
@path_option("metrics", "metrics/drift.json", "Numbers to write (JSON).")
def main(
    _params: ParamsFile, policy: Path, deltas: Path, reference: Path, new: Path, alpha: float, metrics: Path
) -> None:
    """Say whether the low-pass scores of new images have shifted, so that no certificate applies.

    Make the new folder with `extract low` on a table of the new images, with --embeddings and --metrics of
    its own; neither labels nor high are used.

    Exit status: 0 no shift found, 3 shift found, 1 error, 2 wrong use.
    """
    fitted = read_policy(policy)
    calibrated = _read_reference(reference, deltas, fitted)
    _, scores = _read_scores(new, fitted)
    check_enough(calibrated, f"{reference}, calibration images")
    check_enough(scores, str(new))
    found = compare_scores(calibrated, scores, fitted.threshold, alpha)
    write_json(metrics, {**asdict(found), "shift": int(bool(found.findings))})
    for line in (*describe(found), conclude(found, fitted.certificate)):
        click.echo(f"drift: {line}")
    if found.findings:
        sys.exit(SHIFTED)


def _read_scores(folder: Path, policy: Policy) -> tuple[list[str], Floats]:
    """Image ids and scores; refuses embeddings that the policy was not made for."""
    check_conditions(read_set_fingerprint(folder, "low"), policy.made_for, str(folder))
    ids, proxy = measure_proxy(folder, proxy_of(policy))
    return ids, score(proxy, policy.direction)


def _read_reference(folder: Path, deltas: Path, policy: Policy) -> Floats:
    """Scores of the calibration images; refuses a table of deltas that names others than the policy's."""
    ids, scores = _read_scores(folder, policy)
    images = read_set_fingerprint(folder, "low").get("images_sha256")
    if read_fingerprint(deltas).get("low", {}).get("images_sha256") != images:
        raise PipelineError(f"{deltas}: made from other images than {folder}; run delta and fit again")
    table = read_table(deltas, ["image_id", "split"]).to_pydict()
    splits = dict(zip(table["image_id"], table["split"], strict=True))
    chosen: NDArray[np.bool_] = np.array([splits.get(image_id) == "calibration" for image_id in ids])
    if chosen.sum() != policy.calibration_images:
        raise PipelineError(
            f"{folder}: {chosen.sum()} images of the calibration split of {deltas}, expected the "
            f"{policy.calibration_images} that the policy was fitted on; run delta and fit again"
        )
    return scores[chosen]


if __name__ == "__main__":
    main()
