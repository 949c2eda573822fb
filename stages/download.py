"""`adaptive-vit download`: the archive of `data.source`, verified, where the next stage reads it."""

from pathlib import Path

import click

from pipeline.download import bring_archive
from pipeline.folders import walk
from pipeline.image_names import describe_unread
from pipeline.outside import find_outside
from pipeline.params.data import DataParams
from stages.common import ParamsFile, path_option, stage_command
from stages.progress import progress


@stage_command("data")
@path_option("archive", "data/raw/archive.zip", "Where to put the archive (zip).")
def main(params: ParamsFile, archive: Path) -> None:
    """Bring the archive: the official one, the sample, or a zip, its URL or a folder of your own."""
    values = params.section("data", DataParams)
    folder = find_outside(values.source)
    if folder.is_dir() and (unread := describe_unread(path.name for path in walk(folder))):
        click.echo(f"download: passed over, as images in formats that are not read: {unread}")
    bring_archive(values.source, values.sha256, archive, progress)


if __name__ == "__main__":
    main()
