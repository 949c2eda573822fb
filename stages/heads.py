"""Fit a patch embedding and a classifier for each resolution to weights that are trained already."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from pipeline.archive import open_archive
from pipeline.card import describe_own, describe_scores
from pipeline.checkpoint import load_weights
from pipeline.errors import PipelineError
from pipeline.files import read_json, write_json
from pipeline.machine import describe_machine
from pipeline.outside import find_outside
from pipeline.params.model import ModelParams, ResolutionParams
from pipeline.params.runtime import RuntimeParams
from pipeline.params.train import TrainParams
from pipeline.runtime import resolve_runtime
from pipeline.training.data import load_training
from pipeline.training.own import Fitter
from pipeline.training.publish import Publisher, check_ending, read_about
from stages.common import ParamsFile, path_option, stage_command
from stages.progress import progress


@stage_command("train")
@path_option("archive", "data/raw/archive.zip", "Zip of images, with those to train on.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Checkpoint to write (.safetensors), in float16; may be the one that is read.",
)
@click.option(
    "--metrics",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON to put the results into; what training wrote there is kept.",
)
def main(params: ParamsFile, archive: Path, out: Path, metrics: Path | None) -> None:
    """Give the weights of `model.weights` a patch embedding and a classifier for each resolution.

    Both are fitted on whole training images. A long run of training does so at its end; this does it again,
    for other weights, sizes or values of train.stem_blur and train.head_decay, of which either may be empty.
    It takes them, distillation and label_smoothing of `train`, not of train.short.
    """
    check_ending(out)
    values = params.section("train", TrainParams)
    sizes = params.section("resolutions", ResolutionParams).by_role()
    model = params.section("model", ModelParams)
    runtime_params = params.section("runtime", RuntimeParams)
    if values.stem_blur is None and values.head_decay is None:
        raise PipelineError(
            "train.stem_blur, train.head_decay: both empty, which asks for nothing; set one, for example "
            "stem_blur=0.5"
        )
    if model.weights == "random":
        raise PipelineError("model.weights: random; heads are fitted to trained weights: name their file")
    weights = load_weights(model, sizes["high"])
    if values.head_decay is None and any(name.startswith("head_") for name in weights.state):
        raise PipelineError(
            f"train.head_decay: empty, but {model.weights} has heads that were fitted with other patch "
            "embeddings; set it, for example to 0.01, and they are fitted anew"
        )
    runtime = resolve_runtime(runtime_params, weights.architecture)
    about = read_about(find_outside(model.weights))
    _check_held_out(about.get("recipe") or {}, values)
    show = partial(progress, unit="images")
    with open_archive(archive) as opened:
        if weights.classes not in (None, tuple(wnid for wnid, _ in opened.classes)):
            raise PipelineError(
                f"{archive}: lists other classes than {model.weights} was trained for; use one of the same"
            )
        with show("read images", len(opened.labelled) + len(opened.training)) as advance:
            shape, held = weights.architecture, values.holdout_per_class
            data = load_training(opened, sizes["high"], shape.classes, held, values.seed, advance)
        fitter = Fitter(data, sizes, runtime, runtime_params.batch_size, values, show)
        publisher = Publisher(model, opened, fitter)
        found = publisher.publish(out, weights, about)
    if metrics is not None:
        machine = {**describe_machine(), "backend": runtime.backend, "precision": runtime.precision}
        for account in (found[name] for name in ("stems", "heads") if name in found):
            account["machine"] = machine
        write_json(metrics, {**(read_json(metrics) if metrics.exists() else {}), **found})
    for line in [*describe_own(found, sizes), *describe_scores(found, sizes)]:
        click.echo(line)


def _check_held_out(recipe: Mapping[str, Any], params: TrainParams) -> None:
    """The images held out must be those that were when the weights were trained."""
    for name in ("seed", "holdout_per_class"):
        if name in recipe and recipe[name] != getattr(params, name):
            raise PipelineError(
                f"train.{name}: {getattr(params, name)}, but the weights were trained with {recipe[name]}: "
                "images would be held out that they have learned from; set it to that"
            )


if __name__ == "__main__":
    main()
