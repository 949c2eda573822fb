"""What a run can do along its way, as rows of the curve."""

import torch

from pipeline.architecture import Architecture
from pipeline.images import resize
from pipeline.training.data import Images, TrainingData
from pipeline.training.model import TrainableViT
from pipeline.training.state import Run

_EVALUATION_BATCH = 250
# At a time, which take 4 bytes each, several times over: those of that batch of static_vit at 64 px.
_MOST_SCORES = 50_000_000


@torch.no_grad()
def evaluate(model: TrainableViT, images: Images, precision: str) -> dict[int, float]:
    """Share of correct answers by image size in pixels."""
    found = {}
    autocast = torch.autocast(images.pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    # Eager, since its batches have other shapes than a step's, which would all be compiled for.
    with autocast, torch.compiler.set_stance("force_eager"):
        for size_px in model.sizes_px:
            right, batch_size = 0, _fit_batch(model.architecture, size_px)
            for pixels, labels in zip(*(values.split(batch_size) for values in images), strict=True):
                right += int((model(resize(pixels, size_px).float()).argmax(1) == labels).sum())
            found[size_px] = right / len(images.labels)
    return found


def _fit_batch(architecture: Architecture, size_px: int) -> int:
    """By the attention between all tokens, which a CPU's unfused attention holds."""
    scores = architecture.heads * architecture.count_tokens(size_px) ** 2
    return max(1, min(_EVALUATION_BATCH, _MOST_SCORES // scores))


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
