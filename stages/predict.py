"""`adaptive-vit predict`: the fitted policy's answers for new images."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import click

from pipeline.cascade import Bench
from pipeline.files import sha256_of
from pipeline.inputs import find_images
from pipeline.predict import Row, build_cascade, predict
from pipeline.rows import check_ending, write_rows
from stages.common import ParamsFile, path_option, stage_command
from stages.progress import Advance, progress
from stages.running import read_bench


@stage_command("runtime", beside="out")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@path_option("policy", "models/policy.json", "Policy that decides which images are escalated.")
@path_option("out", "data/predictions.csv", "Table to write; one in .parquet is Parquet.")
@click.option(
    "--on-broken",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="Stop at a broken image, or leave it out and name it.",
)
def main(
    params: ParamsFile, images: tuple[Path, ...], policy: Path, out: Path, on_broken: Literal["stop", "skip"]
) -> None:
    """Answer new IMAGES: files, folders, searched to any depth, and .zip archives.

    Files are .jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff, .ppm and .pgm. Each image goes through the low
    pass, and through the high pass where the policy's score calls for it. A row of the table is: image (path,
    or zip::member), class (where the weights know it), top1 (index of the class), score (of the policy;
    larger: high matters more), escalated. Labels are not needed.
    """
    check_ending(out)
    total = sum(1 for _ in find_images(images))
    bench = read_bench(params, policy, ("low", "high"))
    cascade = build_cascade(bench, policy)
    broken: list[str] = []
    leave_out = None if on_broken == "stop" else lambda name, reason: broken.append(f"{name}: {reason}")
    escalated: Counter[bool] = Counter()
    started_s = time.perf_counter()
    try:
        with progress("predict", total, "images") as advance:
            rows = _count(predict(cascade, find_images(images), leave_out), escalated, advance)
            write_rows(out, rows, bench.weights.classes is not None, _fingerprint(bench, policy))
            if broken:
                advance(len(broken))
    finally:
        for left_out in broken:
            click.echo(f"left out: {left_out}", err=True)
    _print(escalated, len(broken), time.perf_counter() - started_s, out)


def _count(rows: Iterable[Row], escalated: Counter[bool], advance: Advance) -> Iterator[Row]:
    for row in rows:
        escalated[row.escalated] += 1
        yield row
        advance()


def _fingerprint(bench: Bench, policy: Path) -> dict[str, Any]:
    return {
        "kind": "predictions",
        "policy_sha256": sha256_of(policy),
        "weights_sha256": bench.weights.sha256,
        "sizes_px": dict(bench.sizes_px),
        "precision": bench.runtime.precision,
        "low_precision": bench.runtime.low_precision,
        "backend": bench.runtime.backend,
    }


def _print(escalated: Counter[bool], left_out: int, elapsed_s: float, out: Path) -> None:
    count = escalated.total()
    broken = f", {left_out:,} broken left out" if left_out else ""
    click.echo(
        f"predict: {count:,} images, {100 * escalated[True] / count:.1f} % escalated, "
        f"{count / elapsed_s:,.0f} images/s{broken}; in {out}"
    )


if __name__ == "__main__":
    main()
