"""What is told of a training run beside its weights: which one it is, how it was made, how it went."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

from pipeline.params.model import Role
from pipeline.params.train import RecipeParams, TrainParams
from pipeline.training.data import TrainingData
from pipeline.training.start import Start
from pipeline.training.state import Run

# A run goes on under another budget, and stems and heads come after it; under any other setting it would be
# another.
_BUDGET = {"max_minutes", "steps", "evaluations", "checkpoint_minutes", "stem_blur", "head_decay"}


def name_run(
    run: Run, start: Start, params: TrainParams, sizes_px: Mapping[Role, int], data: TrainingData
) -> str:
    """The same for a run that may go on where this one was left; a file that it starts from counts by its
    numbers, wherever it lies."""
    knobs = params.model_dump(exclude=_BUDGET | {"start", "recipe", "short"})
    network = [asdict(start.architecture), start.sha256, start.with_head, start.normalisation]
    text = json.dumps([network, run.optimizer_names, knobs, sizes_px, data.sha256], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe_recipe(run: Run, start: Start, params: TrainParams) -> dict[str, Any]:
    """The knobs; a file that the run started from is named by its digest, not its path."""
    knobs = params.model_dump(exclude={"short"})
    return {**knobs, "start": start.sha256 or "random", "optimizers": run.optimizer_names}


def describe_knobs(params: TrainParams) -> str:
    """Those that the long recipe and the short one set, each to its value."""
    knobs = params.model_dump(include=set(RecipeParams.model_fields))
    return ", ".join(f"{name} {'none' if value is None else value}" for name, value in knobs.items())


def count_run(run: Run, data: TrainingData) -> dict[str, Any]:
    return {
        "data": {
            "sha256": data.sha256,
            "train_images": len(data.train.labels),
            "holdout_images": len(data.holdout.labels),
            "left_out": data.left_out,
        },
        "run": {
            "steps": run.step,
            "images": run.images,
            "epochs": run.images / len(data.train.labels),
            "minutes": run.seconds / 60,
        },
    }


def curve_by_role(run: Run, sizes_px: Mapping[Role, int]) -> list[dict[str, float | None]]:
    """The run's rows under the names of roles, instead of the pixels that the model knows.

    None of a role that is not trained: of a column that is missing, `dvc plots` shows none of the others.
    """
    kinds = ("accuracy", "train_accuracy")
    names = {f"{kind}_{size_px}px": f"{kind}_{role}" for kind in kinds for role, size_px in sizes_px.items()}
    without = {f"{kind}_{role}": None for kind in kinds for role in get_args(Role) if role not in sizes_px}
    return [{names.get(name, name): value for name, value in row.items()} | without for row in run.curve]
