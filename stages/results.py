"""`adaptive-vit results`: the measured results as a table, and into a README."""

from pathlib import Path

import click

from pipeline.files import whole_file
from pipeline.measured import read_metrics
from pipeline.results import format_markdown, format_terminal, replace_results
from stages.common import ParamsFile, path_option, stage_command


@stage_command("replay")
@path_option("metrics", "metrics", "Folder of the metrics files.")
@click.option(
    "--readme",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File in which to replace the part between the results markers.",
)
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def main(params: ParamsFile, metrics: Path, readme: Path | None, markdown: bool) -> None:  # noqa: ARG001
    """Print the results of replay and fit, with the conditions they hold for."""
    found = read_metrics(metrics)
    if readme is not None:
        document = replace_results(readme.read_text(encoding="utf-8"), format_markdown(found), str(readme))
        with whole_file(readme) as temporary:
            temporary.write_text(document, encoding="utf-8")
        click.echo(f"{readme}: results replaced")
        return
    click.echo(format_markdown(found) if markdown else format_terminal(found), nl=False)


if __name__ == "__main__":
    main()
