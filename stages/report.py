"""`adaptive-vit report`: one page with the results, the charts and the images behind them."""

from pathlib import Path

import click

from pipeline.files import whole_file
from pipeline.params.report import ReportParams
from pipeline.report import read_report_inputs, render_report
from stages.common import ParamsFile, path_option, stage_command


@stage_command("report")
@path_option("images", "data/images.parquet", "Table of images (Parquet).")
@path_option("deltas", "data/deltas.parquet", "Table of deltas (Parquet).")
@path_option(
    "replay", "data/replay.parquet", "Table of the replay's latencies and answers (Parquet; not replay.json)."
)
@path_option("policy", "models/policy.json", "The fitted policy (JSON).")
@path_option("metrics", "metrics", "Folder of the metrics files (JSON) and the plot data (CSV).")
@path_option("report", "data/report.html", "Page to write (HTML).")
def main(
    params: ParamsFile, images: Path, deltas: Path, replay: Path, policy: Path, metrics: Path, report: Path
) -> None:
    """Write the report: a single HTML file that opens without a network."""
    gallery_images = params.section("report", ReportParams).gallery_images
    page = render_report(read_report_inputs(images, deltas, replay, policy, metrics, gallery_images))
    with whole_file(report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    click.echo(f"{report}: {len(page.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
