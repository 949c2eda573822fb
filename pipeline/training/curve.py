"""What a run can do along its way, as rows of the curve."""

import torch

from pipeline.images import resize
from pipeline.training.data import Images, TrainingData
from pipeline.training.model import TrainableViT
from pipeline.training.state import Run

_EVALUATION_BATCH = 250


@torch.no_grad()
def evaluate(model: TrainableViT, images: Images, precision: str) -> dict[int, float]:
    """Share of correct answers by image size in pixels."""
    found = {}
    autocast = torch.autocast(images.pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    # Eager, since its batches have other shapes than a step's, which would all be compiled for.
    with autocast, torch.compiler.set_stance("force_eager"):
        for size_px in model.sizes_px:
            right = 0
            for pixels, labels in zip(*(values.split(_EVALUATION_BATCH) for values in images), strict=True):
                right += int((model(resize(pixels, size_px).float()).argmax(1) == labels).sum())
            found[size_px] = right / len(images.labels)
    return found


def describe_step(run: Run, data: TrainingData, precision: str) -> dict[str, float]:
    """Of the averaged weights, on the held-out images and on as many of those that are trained on."""
    every = -(-len(data.train.labels) // len(data.holdout.labels))
    learned = Images(*(values[::every] for values in data.train))
    return {
        "step": run.step,
        "minutes": run.seconds / 60,
        "images": run.images,
        "loss": run.loss or 0.0,
        **_by_name("accuracy", evaluate(run.averaged, data.holdout, precision)),
        **_by_name("train_accuracy", evaluate(run.averaged, learned, precision)),
    }


def _by_name(name: str, accuracy: dict[int, float]) -> dict[str, float]:
    return {f"{name}_{size_px}px": share for size_px, share in accuracy.items()}
