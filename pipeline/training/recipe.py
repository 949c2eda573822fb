"""What one training step minimises, and with which optimisers and learning rate."""

import math
from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

from pipeline.errors import PipelineError
from pipeline.images import resize
from pipeline.params.runtime import Precision
from pipeline.params.train import RecipeParams, TrainParams
from pipeline.processor import processor_flags, processor_vendor
from pipeline.training.augment import Mixed
from pipeline.training.model import TrainableViT

# Float (B, 3, S, S) of 0..255 to logits (B, C).
Model = Callable[[Tensor], Tensor]

_BETAS = (0.9, 0.95)
# Either multiplies bfloat16. A step on vectors takes half of what it takes in float32 on AMD's processors,
# and half as long again on Intel's.
_MATRIX_UNIT, _VECTORS = "amx_bf16", "avx512_bf16"
_FAST_VECTORS = "AuthenticAMD"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Elsewhere it is emulated, many times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(processor_flags() & {_MATRIX_UNIT, _VECTORS})


def settle(params: TrainParams, device: torch.device, asked: Collection[str] = ()) -> TrainParams:
    """With what `auto` stands for on the device, and the values of a short run where it is one.

    asked: parameters that the user names, such as train.short.batch_size; raises PipelineError where one is
    of the recipe that is not taken.
    """
    recipe = params.recipe
    if recipe == "auto":
        recipe = "long" if device.type == "cuda" else "short"
    _check_asked(asked, recipe)
    chosen = params.short.model_dump() if recipe == "short" else {}
    precision = choose_precision(params.precision, device)
    return params.model_copy(update={**chosen, "recipe": recipe, "precision": precision})


def _check_asked(asked: Collection[str], recipe: str) -> None:
    taken, left, other = "train.", "train.short.", "short"
    if recipe == "short":
        taken, left, other = left, taken, "long"
    for name in RecipeParams.model_fields:
        if left + name in asked:
            raise PipelineError(
                f"{left}{name}: this run takes the {recipe} recipe, which has a value of its own; set "
                f"{taken}{name}, or train.recipe={other}"
            )


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """`auto` to bfloat16 where a step takes less time in it."""
    if wanted == "auto":
        return "bfloat16" if _is_faster_in_bfloat16(device) else "float32"
    return "float32" if wanted == "float32" else "bfloat16"


def _is_faster_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda" or processor_vendor() == _FAST_VECTORS:
        return multiplies_bfloat16(device)
    return _MATRIX_UNIT in processor_flags()


def build_optimizers(model: TrainableViT, params: TrainParams, device: torch.device) -> list[Optimizer]:
    """Muon (Jordan et al. 2024) for the blocks' matrices, AdamW for all else; only matrices decay.

    Muon's steps are scaled to AdamW's size (Liu et al. 2025), so that one learning rate serves both. torch's
    turns matrices in bfloat16, whatever the precision: a device that does not multiply it gets AdamW.
    """
    matrices = [value for value in model.vit.blocks.parameters() if value.ndim == 2]
    known = {id(value) for value in matrices}
    others = [value for value in model.parameters() if id(value) not in known]
    rate, decay = params.learning_rate, params.weight_decay
    return [
        Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        if multiplies_bfloat16(device)
        else AdamW(matrices, lr=rate, weight_decay=decay, betas=_BETAS),
        AdamW(others, lr=rate, weight_decay=0.0, betas=_BETAS),
    ]


def learning_rate(progress: float, warmup: float) -> float:
    """Factor of the peak at a share `progress` of the run: linear to 1 over `warmup`, then cosine to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def compute_joint_loss(
    model: Model, teacher: Model, batch: Mixed, sizes_px: Sequence[int], params: TrainParams
) -> Tensor:
    """All images at the smallest and the largest size, a part of them at those between.

    Every size also learns from what the teacher says of the largest. (Distillation from high to low:
    CF-ViT, Chen et al. 2023; ResFormer, Tian et al. 2023. Averaged weights as the teacher: Tarvainen &
    Valpola 2017.)
    """
    smallest, *between, largest = sorted(sizes_px)
    losses, weights = [], []
    with torch.no_grad():
        target = teacher(resize(batch.images, largest)).softmax(dim=1)
    for size_px in (smallest, *between, largest):
        share = params.between_share if size_px in between else 1.0
        count = max(1, round(share * len(batch.labels)))
        part = Mixed(*(value[:count] for value in batch))
        logits = model(resize(part.images, size_px))
        distance = F.kl_div(logits.log_softmax(1), target[:count], reduction="batchmean")
        loss = _cross_entropy(logits, part, params.label_smoothing) + params.distillation * distance
        losses.append(share * loss)
        weights.append(share)
    return torch.stack(losses).sum() / sum(weights)


def compute_shared_loss(model: Model, batch: Mixed, sizes_px: Sequence[int], params: TrainParams) -> Tensor:
    """Every size gets a part of the images; of fewer images than sizes, the largest get one each."""
    sizes_px = sorted(sizes_px)[-len(batch.labels) :]
    parts = zip(*(value.tensor_split(len(sizes_px)) for value in batch), strict=True)
    losses = []
    for size_px, values in zip(sizes_px, parts, strict=True):
        part = Mixed(*values)
        logits = model(resize(part.images, size_px))
        losses.append(_cross_entropy(logits, part, params.label_smoothing) * len(part.labels))
    return torch.stack(losses).sum() / len(batch.labels)


def _cross_entropy(logits: Tensor, batch: Mixed, smoothing: float) -> Tensor:
    """Of both labels of each image, by their share of it."""
    first, second = (
        F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        for labels in (batch.labels, batch.others)
    )
    return (batch.share * first + (1 - batch.share) * second).mean()
