"""`adaptive-vit study`: which signal wins, what a certificate costs, and when adaptivity beats static mid."""

from pathlib import Path

import click

from pipeline.candidates import read_scenario
from pipeline.findings import is_stable, is_within_bound
from pipeline.lineage import check_replayed
from pipeline.params.fit import FitParams
from pipeline.params.replay import SCENARIOS
from pipeline.results import replace_in_file
from pipeline.study import Stored, study
from stages.common import ParamsFile, path_option, stage_command


@stage_command("fit")
@path_option("low", "data/embeddings/low", "Folder of the low embeddings.")
@path_option("deltas", "data/deltas.parquet", "Table of deltas.")
@path_option("images", "data/images.parquet", "Table of images.")
@path_option("answers", "data/replay.parquet", "Answers of the replay.")
@path_option("replay", "metrics/replay.json", "Measured costs.")
@path_option("environment", "metrics/environment.json", "What they were measured with (JSON).")
@click.option(
    "--page",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Document in which to replace the part between the markers; else it is printed.",
)
def main(params: ParamsFile, replay: Path, environment: Path, page: Path | None, **paths: Path) -> None:
    """Print the tables of docs/results.md, from the data at hand: two minutes for 10,000 images."""
    scenario = SCENARIOS[0]
    measured = read_scenario(replay, scenario)
    check_replayed(paths["deltas"], environment)
    if not (is_stable(measured) and is_within_bound(measured)):
        click.echo(f"Warning: {replay}: times that did not settle, or beat the bound; replay again", err=True)
    lines = study(Stored(**paths), scenario, measured, params.section("fit", FitParams))
    markdown = "\n".join(lines) + "\n"
    if page is None:
        click.echo(markdown, nl=False)
    else:
        replace_in_file(page, markdown)
        click.echo(f"{page}: results replaced")


if __name__ == "__main__":
    main()
