"""The measured part of the model card, from what training wrote."""

from collections.abc import Mapping
from typing import Any


def format_card(trained: Mapping[str, Any], sizes_px: Mapping[str, int]) -> str:
    """Markdown: top-1 by resolution, and how the weights came about; `trained` is metrics/train.json."""
    head = ["| role | top-1 | 95 % interval | held-out training images |", "|---|---:|---:|---:|"]
    held = trained["holdout"]
    rows = [
        f"| {role} ({sizes_px[role]} px) | {_percent(score['accuracy'])} | "
        f"{_percent(score['ci_low'])} to {_percent(score['ci_high'])} | "
        f"{_percent(held[f'accuracy_{role}'])} |"
        for role, score in trained["validation"].items()
    ]
    data, run, machine = trained["data"], trained["run"], trained["machine"]
    device = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    account = (
        f"{run['steps']:,} steps, {run['images']:,} images ({run['epochs']:.1f} epochs of "
        f"{data['train_images']:,}), {run['minutes']:.0f} minutes on {device}; "
        f"{data['holdout_images']:,} training images held out, {data['left_out']:,} left out because a "
        f"validation image shows the same; torch {machine['versions']['torch']}; training data sha256 "
        f"{data['sha256'][:12]}. Top-1 is that of the shipped float16 weights on all validation images."
    )
    return "\n".join([*head, *rows, "", account]) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
