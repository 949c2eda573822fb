"""The measured part of the model card, from what training wrote."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import PipelineError
from pipeline.params.model import Role

# What each size may have to itself.
_PARTS = {"stems": "patch embeddings", "heads": "heads"}


def format_card(trained: Mapping[str, Any], sizes_px: Mapping[Role, int]) -> str:
    """Markdown: top-1 by resolution, and how the weights came about; `trained` is metrics/train.json."""
    names = ["role", "top-1", "95 % interval", "held-out training images", *_shared_parts(trained).values()]
    rows = [
        [
            _name(role, sizes_px),
            _percent(score["accuracy"]),
            f"{_percent(score['ci_low'])} to {_percent(score['ci_high'])}",
            *_held_out(trained, role),
        ]
        for role, score in trained["validation"].items()
    ]
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    differences = "; ".join(_describe_differences(trained))
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    return (
        "\n".join([*table, "", f"On the same images, paired: {differences}.", "", _account(trained)]) + "\n"
    )


def describe_scores(trained: Mapping[str, Any], sizes_px: Mapping[Role, int]) -> list[str]:
    """For the terminal: a line for each role, then one for each difference between two."""
    scores = [
        f"{_name(role, sizes_px)}: {_percent(score['accuracy'])} "
        f"[{_percent(score['ci_low'])}, {_percent(score['ci_high'])}]"
        for role, score in trained["validation"].items()
    ]
    return [*scores, *_describe_differences(trained)]


def _name(role: Role, sizes_px: Mapping[Role, int]) -> str:
    """The metrics know the roles alone."""
    if role not in sizes_px:
        raise PipelineError(
            f"resolutions.{role}: empty, but train.json has results of {role}; set it to the pixels that the "
            "weights were trained for"
        )
    return f"{role} ({sizes_px[role]} px)"


def _held_out(trained: Mapping[str, Any], role: Role) -> list[str]:
    """As shipped, and with less and less that the size has to itself."""
    parts = _shared_parts(trained)
    if not parts:
        return [_percent(trained["holdout"][f"accuracy_{role}"])]
    shares = [trained[part]["holdout"][role] for part in parts]
    return [_percent(shares[0]["own"]), *(_percent(share["shared"]) for share in shares)]


def _shared_parts(trained: Mapping[str, Any]) -> dict[str, str]:
    """What each size has to itself, last fitted first, and what to call results without it."""
    names = {"heads": "with one head for all", "stems": "and one patch embedding"}
    if "heads" not in trained:
        names["stems"] = "with one patch embedding for all"
    return {part: name for part, name in names.items() if part in trained}


def describe_own(trained: Mapping[str, Any], sizes_px: Mapping[Role, int]) -> list[str]:
    """For the terminal: a line for each thing that every size got to itself, by the held-out images."""
    return [
        f"{_PARTS[part]}, held out: "
        + ", ".join(
            f"{_name(role, sizes_px)} {_percent(share['shared'])} -> {_percent(share['own'])}"
            for role, share in trained[part]["holdout"].items()
        )
        for part in reversed(_shared_parts(trained))
    ]


def _describe_differences(trained: Mapping[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', ' ')} {100 * found['value']:+.2f} points "
        f"[{100 * found['ci_low']:+.2f}, {100 * found['ci_high']:+.2f}]"
        for name, found in trained["differences"].items()
    ]


def _account(trained: Mapping[str, Any]) -> str:
    data, run = trained["data"], trained["run"]
    account = (
        f"{run['steps']:,} steps, {run['images']:,} images ({run['epochs']:.1f} epochs of "
        f"{data['train_images']:,}), {run['minutes']:.0f} minutes on {_device(trained['machine'])}; "
        f"{data['holdout_images']:,} training images held out, {data['left_out']:,} left out because a "
        f"validation image shows the same; torch {trained['machine']['versions']['torch']}; training data "
        f"sha256 {data['sha256'][:12]}. "
    )
    for part in reversed(_shared_parts(trained)):
        if machine := trained[part].get("machine"):
            where = f"{_device(machine)}, torch {machine['versions']['torch']}"
            account += f"{_PARTS[part].capitalize()} were fitted on {where}. "
    return account + "Top-1 is that of the shipped float16 weights on all validation images."


def _device(machine: Mapping[str, Any]) -> str:
    return str(machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores")


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
