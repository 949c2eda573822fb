"""`adaptive-vit results`: the measured results as a table, and into a README."""

from pathlib import Path

import click

from pipeline.card import format_card
from pipeline.files import read_json
from pipeline.measured import read_metrics
from pipeline.params.model import ResolutionParams
from pipeline.results import format_markdown, format_terminal, replace_in_file
from stages.common import ParamsFile, path_option, stage_command


@stage_command("replay")
@path_option("metrics", "metrics", "Folder of the metrics files (JSON).")
@click.option(
    "--readme",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Document (Markdown) in which to replace the part between the markers.",
)
@click.option("--part", default="results", show_default=True, help="Name of the markers in that document.")
@click.option(
    "--card",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Model card (Markdown) in which to replace the part between the markers, by what training wrote.",
)
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def main(
    params: ParamsFile, metrics: Path, readme: Path | None, part: str, card: Path | None, markdown: bool
) -> None:
    """Print the results of replay and fit, with the conditions they hold for; or put them into a document."""
    if card is not None:
        sizes_px = params.section("resolutions", ResolutionParams).by_role()
        _replace(card, format_card(read_json(metrics / "train.json"), sizes_px))
    if readme is not None:
        _replace(readme, format_markdown(read_metrics(metrics)), part)
    if card is None and readme is None:
        found = read_metrics(metrics)
        click.echo(format_markdown(found) if markdown else format_terminal(found), nl=False)


def _replace(path: Path, markdown: str, part: str = "results") -> None:
    replace_in_file(path, markdown, part)
    click.echo(f"{path}: results replaced")


if __name__ == "__main__":
    main()
