"""Train the model for all resolutions together, from the archive's training split."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
import torch

from pipeline.archive import Archive, open_archive
from pipeline.card import describe_scores
from pipeline.errors import PipelineError, is_out_of_memory
from pipeline.files import write_csv, write_json
from pipeline.machine import describe_machine
from pipeline.outside import find_outside
from pipeline.params.model import ModelParams, ResolutionParams, Role
from pipeline.params.runtime import RuntimeParams
from pipeline.params.train import TrainParams
from pipeline.runtime import Runtime, resolve_runtime
from pipeline.training.account import count_run, curve_by_role, describe_knobs, describe_recipe, name_run
from pipeline.training.data import TrainingData, load_training
from pipeline.training.loop import Status, Trainer, move_to, train
from pipeline.training.own import Fitter
from pipeline.training.publish import Publisher, check_ending, read_about
from pipeline.training.recipe import settle
from pipeline.training.start import Start, check_held_out, has_other_images, read_start
from pipeline.training.state import Run, resume_run, start_run
from pipeline.vit import Weights
from pipeline.zoo import find_network
from stages.common import ParamsFile, path_option, stage_command
from stages.progress import progress, show_share

SCRATCH = Path(".cache/train")


@stage_command("train")
@path_option("archive", "data/raw/archive.zip", "Zip of images, with those to train on.")
@path_option("weights", "models/static_vit.safetensors", "Checkpoint to write (.safetensors).")
@path_option("metrics", "metrics/train.json", "Results to write.")
@path_option("curve", "metrics/plots/training.csv", "Loss and held-out accuracy over the run, to write.")
def main(params: ParamsFile, archive: Path, weights: Path, metrics: Path, curve: Path) -> None:
    """Train the weights that the other stages use; a run that was stopped goes on where it was.

    Without a GPU it takes the values of train.short, where train.recipe does not say otherwise. Then fit a
    patch embedding and a classifier for each resolution, unless stem_blur and head_decay are empty, as in
    train.short; `adaptive-vit heads` does that alone. The validation images of the archive are looked at
    once, at the end; choose by the held-out images.
    """
    check_ending(weights)
    settings = params.section("train", TrainParams)
    _check_start(settings.start, weights)
    sizes = params.section("resolutions", ResolutionParams).by_role()
    model = params.section("model", ModelParams)
    runtime_params = params.section("runtime", RuntimeParams)
    runtime = resolve_runtime(runtime_params, find_network(model.name).architecture)
    values = settle(settings, runtime.device, params.overridden)
    with open_archive(archive) as opened:
        start = read_start(model, values.start, sizes["high"], [wnid for wnid, _ in opened.classes])
        for size_px in sizes.values():
            start.architecture.check_size(size_px)
        data = _load(opened, sizes["high"], start.architecture.classes, values)
        if values.start != "random":
            about = read_about(find_outside(values.start))
            check_held_out(about, values, data, start.with_head)
            if start.with_head and has_other_images(about, sizes["high"], data):
                click.echo(
                    "train: of these classes the start has learned from other images, among which some of "
                    "those held out may be: accuracies on them may be too good",
                    err=True,
                )
        run = _train(start, values, sizes, data, runtime)
        bar, batch_size = partial(progress, unit="images"), runtime_params.batch_size
        publisher = Publisher(model, opened, Fitter(data, sizes, runtime, batch_size, values, bar))
        trained = Weights(start.architecture, run.averaged.to_state(), None, "", start.normalisation)
        recipe, counts = describe_recipe(run, start, values), count_run(run, data)
        about = {"resolutions": sizes, "recipe": recipe, **counts}
        found = publisher.publish(weights, trained, about)
    rows = curve_by_role(run, sizes)
    write_csv(curve, {name: [row[name] for row in rows] for name in rows[0]})
    machine = {**describe_machine(), "backend": runtime.backend, "precision": runtime.precision}
    write_json(metrics, {**found, "holdout": rows[-1], **counts, "machine": machine})
    for line in describe_scores(found, sizes):
        click.echo(line)


def _check_start(start: str, weights: Path) -> None:
    """A run that goes on from what it has written would be another."""
    if start != "random" and find_outside(start).resolve() == weights.resolve():
        raise PipelineError(f"train.start: {start} is the file to be written; name another with --weights")


def _train(
    start: Start, values: TrainParams, sizes: dict[Role, int], data: TrainingData, runtime: Runtime
) -> Run:
    """A run to its end, from where an earlier one left it if that was stopped."""
    run = start_run(start, list(sizes.values()), values, runtime.device)
    click.echo(f"train: {runtime.device}, {values.precision}, {' and '.join(run.optimizer_names)}")
    click.echo(f"train: {values.recipe} recipe, {describe_knobs(values)}")
    checkpoint = SCRATCH / f"{name_run(run, start, values, sizes, data)}.pt"
    if checkpoint.exists():
        resume_run(run, checkpoint)
        click.echo(f"train: goes on after step {run.step} ({checkpoint})")
    if runtime.device.type == "cuda":
        run.compile_blocks()
    with _readable_shortage(values), torch.enable_grad(), show_share("train") as show:
        trainer = Trainer(move_to(data, runtime.device), values, runtime.device)
        train(run, trainer, checkpoint, lambda status: show(status.progress, _describe(status)))
    return run


@contextmanager
def _readable_shortage(values: TrainParams) -> Iterator[None]:
    """Of memory; the batches of training are others than those of the engines."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        name = "train.short.batch_size" if values.recipe == "short" else "train.batch_size"
        raise PipelineError(
            f"out of memory in training; use a smaller {name} (now {values.batch_size}), smaller sizes or "
            "fewer images; the run goes on from its last checkpoint where only memory was freed"
        ) from error


def _load(archive: Archive, canvas_px: int, classes: int, values: TrainParams) -> TrainingData:
    count = len(archive.labelled) + len(archive.training)
    with progress("read images", count, "images") as advance:
        return load_training(archive, canvas_px, classes, values.holdout_per_class, values.seed, advance)


def _describe(status: Status) -> str:
    accuracy = ", ".join(f"{name[9:]} {100 * share:.1f} %" for name, share in status.accuracy.items())
    parts = [f"{status.images_per_s:.0f} images/s", f"{status.left_s / 60:.0f} min left"]
    if status.loss is not None:
        parts.insert(0, f"loss {status.loss:.3f}")
    if accuracy:
        parts.append(f"held out: {accuracy}")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
