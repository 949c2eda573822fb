"""`adaptive-vit prepare`: the archive becomes the table of drawn images."""

from collections.abc import Mapping
from pathlib import Path

import click

from pipeline.archive import Archive, open_archive
from pipeline.files import write_json
from pipeline.labels import UNLABELLED
from pipeline.params.data import DataParams
from pipeline.prepare import prepare
from pipeline.tables import IMAGES, write_groups
from stages.common import ParamsFile, path_option, stage_command
from stages.progress import progress

LISTED = 20
NAMED = 3


def _list_skipped(what: str, skipped: Mapping[str, str]) -> None:
    if not skipped:
        return
    click.echo(f"{what}: {len(skipped)} left out", err=True)
    for image_id, reason in list(skipped.items())[:LISTED]:
        click.echo(f"  {image_id}: {reason}", err=True)
    if len(skipped) > LISTED:
        click.echo(f"  and {len(skipped) - LISTED} more", err=True)


def _describe(archive: Archive) -> str:
    """What the archive was taken for, since folders can mean more than one thing."""
    names = [wnid for wnid, _ in archive.classes if wnid != UNLABELLED]
    some = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    classes = f"of {len(names):,} classes ({some})" if names else "without class folders and labels"
    parts = [f"{len(archive.labelled):,} images {classes}"]
    if archive.training:
        parts.append(f"{len(archive.training):,} images to train on set aside")
    if unread := archive.describe_passed_over():
        parts.append(f"passed over, as images in formats that are not read: {unread}")
    return "; ".join(parts)


@stage_command("data")
@path_option(
    "archive", "data/raw/archive.zip", "Zip of images, in class folders or in Tiny ImageNet's layout."
)
@path_option("images", "data/images.parquet", "Table of images to write (Parquet).")
@path_option("metrics", "metrics/prepare.json", "Counts to write (JSON).")
def main(params: ParamsFile, archive: Path, images: Path, metrics: Path) -> None:
    """Draw the calibration and the evaluation images from the archive."""
    values = params.section("data", DataParams)
    with open_archive(archive) as opened:
        click.echo(f"prepare: {_describe(opened)}")
        with progress("prepare", len(opened.labelled), "images") as advance:
            prepared = prepare(opened, values, advance)
        write_groups(images, IMAGES, prepared.groups, prepared.fingerprint)
    _list_skipped("broken images", prepared.broken)
    _list_skipped("images of the same content as another", prepared.duplicates)
    write_json(metrics, prepared.metrics)


if __name__ == "__main__":
    main()
