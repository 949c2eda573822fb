"""Fit a patch embedding and a classifier for each resolution to weights that are trained already."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from pipeline.archive import Archive, open_archive
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
from pipeline.training.start import check_data, check_held_out
from pipeline.vit import Weights
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
    These two, distillation and label_smoothing are those under `train`, never those under train.short.
    """
    check_ending(out)
    values = params.section("train", TrainParams)
    sizes = params.section("resolutions", ResolutionParams).by_role()
    model = params.section("model", ModelParams)
    runtime_params = params.section("runtime", RuntimeParams)
    weights = _load(model, values, sizes["high"])
    runtime = resolve_runtime(runtime_params, weights.architecture)
    about = read_about(find_outside(model.weights))
    kept = read_json(metrics) if metrics is not None and metrics.exists() else {}
    for size_px in sizes.values():
        weights.architecture.check_size(size_px)
    show = partial(progress, unit="images")
    with open_archive(archive) as opened:
        _check_classes(opened, weights, model)
        with show("read images", len(opened.labelled) + len(opened.training)) as advance:
            shape, held = weights.architecture, values.holdout_per_class
            data = load_training(opened, sizes["high"], shape.classes, held, values.seed, advance)
        check_data(about, sizes["high"], data, archive)
        check_held_out(about, values, data, same_classes=True)
        fitter = Fitter(data, sizes, runtime, runtime_params.batch_size, values, show)
        found = Publisher(model, opened, fitter).publish(out, weights, about)
    if metrics is not None:
        machine = {**describe_machine(), "backend": runtime.backend, "precision": runtime.precision}
        write_json(metrics, {**kept, **_with_machine(found, machine)})
    for line in [*describe_own(found, sizes), *describe_scores(found, sizes)]:
        click.echo(line)


def _load(model: ModelParams, params: TrainParams, high_px: int) -> Weights:
    """The trained weights, where something is asked for that they can be given."""
    if params.stem_blur is None and params.head_decay is None:
        raise PipelineError(
            "train.stem_blur, train.head_decay: both empty, which asks for nothing; set one, for example "
            "stem_blur=0.5"
        )
    if model.weights == "random":
        raise PipelineError("model.weights: random; heads are fitted to trained weights: name their file")
    weights = load_weights(model, high_px)
    if params.head_decay is None and any(name.startswith("head_") for name in weights.state):
        raise PipelineError(
            f"train.head_decay: empty, but {model.weights} has heads that were fitted with other patch "
            "embeddings; set it, for example to 0.01, and they are fitted anew"
        )
    return weights


def _check_classes(archive: Archive, weights: Weights, model: ModelParams) -> None:
    if weights.classes is None:
        raise PipelineError(
            f"model.weights: {model.weights} does not say what its logits mean; name a list of classes, in "
            "their order, as model.classes"
        )
    if weights.classes != tuple(wnid for wnid, _ in archive.classes):
        raise PipelineError(
            f"{archive.path}: lists other classes than {model.weights} was trained for; use one of the same"
        )


def _with_machine(found: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    """On which stems and heads were fitted; training may have run on another."""
    return {
        name: {**account, "machine": machine} if name in ("stems", "heads") else account
        for name, account in found.items()
    }


if __name__ == "__main__":
    main()
