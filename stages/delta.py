"""Oracle deltas between the low and the high embedding of every image."""

from pathlib import Path

import click

from pipeline.delta import compute_deltas, histogram, summarise, to_arrow
from pipeline.files import write_csv, write_json
from pipeline.labels import why_unjudged
from pipeline.tables import read_table, write_table
from stages.common import ParamsFile, path_option, stage_command


@stage_command("data")
@path_option("images", "data/images.parquet", "Table of images (Parquet).")
@path_option("low", "data/embeddings/low", "Folder of the low embeddings (Parquet).")
@path_option("high", "data/embeddings/high", "Folder of the high embeddings (Parquet).")
@path_option("deltas", "data/deltas.parquet", "Table of deltas to write (Parquet).")
@path_option("metrics", "metrics/delta.json", "Summary to write (JSON).")
@path_option("plots", "metrics/plots", "Folder for delta_histogram.csv.")
def main(
    _params: ParamsFile, images: Path, low: Path, high: Path, deltas: Path, metrics: Path, plots: Path
) -> None:
    """Measure how far each image's low embedding lies from its high one: L2, relative, cosine, top-1."""
    table, fingerprint = compute_deltas(images, low, high)
    summary = summarise(table)
    write_table(deltas, to_arrow(table), fingerprint)
    write_json(metrics, summary)
    write_csv(plots / "delta_histogram.csv", histogram(table).to_dict(as_series=False))
    click.echo(
        f"delta: {summary['images']} images, mean {summary['delta']['mean']:.4f}, "
        f"top-1 agreement {summary['agreement']:.4f}"
    )
    if "accuracy" not in summary:
        wnids = read_table(images, ["wnid"])["wnid"].to_pylist()
        click.echo(f"delta: no accuracies: {why_unjudged(wnids, fingerprint['low'].get('classes'))}")


if __name__ == "__main__":
    main()
