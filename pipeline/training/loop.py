"""The training loop: steps until the budget is used up, with evaluations and checkpoints between them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.params.train import TrainParams
from pipeline.training.augment import Mixed, crop_and_flip, erase, jitter_colors, mix, three_augment
from pipeline.training.captured import CapturedLoss, backward
from pipeline.training.curve import describe_step
from pipeline.training.data import Images, TrainingData
from pipeline.training.recipe import compute_joint_loss, compute_shared_loss, learning_rate
from pipeline.training.state import Run, save_run

_LARGEST_GRADIENT = 1.0
# Of the moving mean of the loss that is reported.
_SMOOTHING = 0.98
_STEPS_PER_SEED = 1_000_003
# Of the time, at most, so that a slow machine trains and does not judge what it has hardly trained.
_EVALUATION_SHARE = 0.1


class Status(NamedTuple):
    """What a progress display shows; `accuracy` by name is that of the last evaluation, loss is None before
    the first step's is read.
    """

    progress: float
    loss: float | None
    images_per_s: float
    left_s: float
    accuracy: dict[str, float]


@dataclass(frozen=True)
class Trainer:
    """What stays the same over a run; pixels and labels lie on the device."""

    data: TrainingData
    params: TrainParams
    device: torch.device
    # That of the present phase, by the sizes that take part.
    captured: dict[tuple[int, ...], CapturedLoss] = field(default_factory=dict)

    def take_step(self, run: Run) -> Tensor:
        """One batch forward and back; returns the loss, on a GPU still under way."""
        torch.manual_seed(self._seed(run.step))  # Stochastic depth draws from it.
        batch = self._draw_batch(run.step)
        loss = self._descend(batch, run)
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), _LARGEST_GRADIENT)
        factor = learning_rate(run.progress, self.params.warmup)
        for optimizer in run.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.params.learning_rate * factor
            optimizer.step()
        run.step += 1
        run.images += len(batch.labels)
        run.average(self.params.average)
        return loss.detach()

    def _descend(self, batch: Mixed, run: Run) -> Tensor:
        """The loss; the model's gradients become its own."""
        sizes_px = self._taking_part(run)

        def compute(batch: Mixed) -> Tensor:
            precise = self.params.precision == "float32"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=not precise):
                return self._compute_loss(batch, run, sizes_px)

        if self.device.type != "cuda":
            return backward(compute, batch, run.model)
        if sizes_px not in self.captured:
            self.captured.clear()
            self.captured[sizes_px] = CapturedLoss(compute, batch, run.model)
        return self.captured[sizes_px](batch)

    def _taking_part(self, run: Run) -> tuple[int, ...]:
        """The image sizes of the present step: progressive resizing."""
        sizes_px = run.model.sizes_px
        if run.progress < self.params.smallest_until:
            return sizes_px[:1]
        return sizes_px[:-1] if run.progress < self.params.small_until else sizes_px

    def _compute_loss(self, batch: Mixed, run: Run, sizes_px: tuple[int, ...]) -> Tensor:
        if sizes_px != run.model.sizes_px or not self.params.distillation:
            return compute_shared_loss(run.model, batch, sizes_px, self.params)
        return compute_joint_loss(run.model, run.averaged, batch, sizes_px, self.params)

    def _seed(self, number: int) -> int:
        """Of a step's or an epoch's draws; runs of different seeds share none."""
        return self.params.seed * _STEPS_PER_SEED + number

    def _draw_batch(self, step: int) -> Mixed:
        """The step's part of its epoch's order, augmented; the same for a seed and a step, always."""
        images, size = self.data.train, min(self.params.batch_size, len(self.data.train.labels))
        steps = len(images.labels) // size
        order = _draw_order(len(images.labels), self._seed(step // steps))
        chosen = order[step % steps * size :][:size].to(self.device)
        generator = torch.Generator(self.device).manual_seed(self._seed(step))
        params = self.params
        pixels = crop_and_flip(images.pixels[chosen], params.crop_area, generator)
        grey = pixels.mean(dim=(0, 2, 3), keepdim=True)
        pixels = three_augment(pixels, params.three_augment, generator)
        pixels = jitter_colors(pixels, params.color_jitter, generator)
        mixed = mix(pixels, images.labels[chosen], params.cutmix, params.mixup, generator)
        return mixed._replace(images=erase(mixed.images, params.erasing, grey, generator))


@lru_cache(maxsize=1)
def _draw_order(count: int, seed: int) -> Tensor:
    """Of one epoch; kept for its steps."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def move_to(data: TrainingData, device: torch.device) -> TrainingData:
    def move(images: Images) -> Images:
        return Images(images.pixels.to(device), images.labels.to(device))

    return TrainingData(move(data.train), move(data.holdout), data.left_out, data.sha256)


def train(run: Run, trainer: Trainer, checkpoint: Path, on_step: Callable[[Status], object]) -> None:
    """Go on with the run until its progress is 1: by `params.steps`, or else by the clock.

    Progress drives the schedule, so a slow machine takes fewer steps and still ends on time; what was
    used up before an interruption counts. A checkpoint is written every few minutes and at the end.
    """
    params = trainer.params
    batch_size = min(params.batch_size, len(trainer.data.train.labels))
    run.model.train()
    run.progress = _progress(run, params)
    saved_s, step_s = run.seconds, None
    under_way: Tensor | None = None
    while run.progress < 1:
        started_s = time.perf_counter()
        loss = trainer.take_step(run)
        # Reading a loss waits for its step: the one before, so that a GPU always has the next at hand.
        if under_way is not None:
            run.loss = _smooth(run.loss, float(under_way))
        under_way = loss
        step_s = _smooth(step_s, time.perf_counter() - started_s)
        run.seconds += time.perf_counter() - started_s
        run.progress = _progress(run, params)
        due = _is_due(run, params)
        save = run.seconds - saved_s > 60 * params.checkpoint_minutes or run.progress >= 1
        if due or save:
            run.loss, under_way = _smooth(run.loss, float(under_way)), None
        if due:
            started_s = time.perf_counter()
            run.curve.append(describe_step(run, trainer.data, params.precision))
            run.evaluation_s = time.perf_counter() - started_s
            run.seconds += run.evaluation_s
            run.evaluated_s = run.seconds
        if save:
            save_run(run, checkpoint)
            saved_s = run.seconds
        on_step(_status(run, batch_size / step_s))
    if not run.curve or run.curve[-1]["step"] != run.step:  # Taken up again under a budget that is used up.
        run.curve.append(describe_step(run, trainer.data, params.precision))
        save_run(run, checkpoint)


def _is_due(run: Run, params: TrainParams) -> bool:
    """At equal shares of the run, and at its end; a run that goes on under another budget keeps its rows.

    By the clock less often, where evaluations would take more than their share of the time.
    """
    if run.progress >= 1:
        return True
    if params.steps:
        last = run.curve[-1]["step"] if run.curve else 0
        return (run.step - last) * params.evaluations >= params.steps
    least_s = max(
        60 * params.max_minutes / params.evaluations, run.evaluation_s * (1 / _EVALUATION_SHARE - 1)
    )
    return run.seconds - run.evaluated_s >= least_s


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else _SMOOTHING * old + (1 - _SMOOTHING) * new


def _progress(run: Run, params: TrainParams) -> float:
    share = run.step / params.steps if params.steps else run.seconds / (60 * params.max_minutes)
    return min(1.0, share)


def _status(run: Run, images_per_s: float) -> Status:
    accuracy = {name: value for name, value in (run.curve or [{}])[-1].items() if name.startswith("accuracy")}
    left_s = run.seconds / run.progress * (1 - run.progress)
    return Status(run.progress, run.loss, images_per_s, left_s, accuracy)
