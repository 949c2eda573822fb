"""A training run that can be put away and taken up again, and that then goes on as if never stopped."""

import copy
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.params.train import TrainParams
from pipeline.training.model import TrainableViT
from pipeline.training.recipe import build_optimizers
from pipeline.training.start import Start


@dataclass
class Run:
    """progress: share of the run that is done, 0 to 1; loss: its moving mean; curve: a row an evaluation.

    evaluated_s: when the last evaluation was over, in seconds of the run; evaluation_s: what it took.

    Nothing random is kept: every draw of a step comes from the run's seed and the step's number.
    """

    model: TrainableViT
    averaged: TrainableViT
    optimizers: list[Optimizer]
    step: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    evaluated_s: float = 0.0
    evaluation_s: float = 0.0
    images: int = 0
    loss: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def optimizer_names(self) -> list[str]:
        return [type(optimizer).__name__ for optimizer in self.optimizers]

    def compile_blocks(self) -> None:
        self.model.compile_blocks()
        self.averaged.compile_blocks()

    def average(self, decay: float) -> None:
        """Move the averaged weights towards the current ones (exponential moving average)."""
        # Soon after the start little is worth keeping.
        decay = min(decay, (1 + self.step) / (10 + self.step))
        move = get_ema_multi_avg_fn(decay)
        move(list(self.averaged.parameters()), list(self.model.parameters()), self.step)


def start_run(start: Start, sizes_px: list[int], params: TrainParams, device: torch.device) -> Run:
    """What the start does not bring is drawn at random, from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        fused = device.type == "cuda"
        model = TrainableViT(start.architecture, sizes_px, params.drop_path, fused, start.normalisation)
    if start.weights:
        model.load_state(start.weights.state, start.with_head)
    model = model.to(device)
    return Run(model, copy.deepcopy(model).eval(), build_optimizers(model, params, device))


def save_run(run: Run, path: Path) -> None:
    state: dict[str, Any] = {
        "model": run.model.state_dict(),
        "averaged": run.averaged.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "counts": [run.step, run.progress, run.seconds, run.images, run.loss],
        "evaluation": [run.evaluated_s, run.evaluation_s],
        "curve": run.curve,
    }
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def resume_run(run: Run, path: Path) -> None:
    """Bring a run just started to where the saved one was; raises PipelineError for a damaged file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise PipelineError(f"{path}: cannot be read ({error}); delete it to begin anew") from None
    run.model.load_state_dict(state["model"])
    run.averaged.load_state_dict(state["averaged"])
    for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    run.step, run.progress, run.seconds, run.images, run.loss = state["counts"]
    run.evaluated_s, run.evaluation_s = state["evaluation"]
    run.curve = state["curve"]
