"""Measured costs hold for the conditions that they were measured under, and for no others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, shorten
from pipeline.files import read_json
from pipeline.machine import name_processor
from pipeline.thresholds import Costs

UNSTABLE = "its times did not settle; leave the machine alone and run adaptive-vit profile again"


def are_stable(profile: Mapping[str, Any]) -> bool:
    """Of what metrics/profile.json holds: whether the times of low and high settled, as far as it says."""
    return all(profile.get(role, {}).get("stable", 1) for role in ("low", "high"))


def check_costs(
    profile: Mapping[str, Any],
    running: Mapping[str, Any],
    machine: Mapping[str, Any],
    sizes_px: Mapping[Any, int],
    where: Path,
) -> None:
    """Raise PipelineError where metrics/profile.json was measured under other conditions, or at other sizes.

    running: such as backend, precision, threads and weights_sha256, by the names that the profile has them
    under; machine: what describe_machine says of the one that the costs are for.
    """
    pixels = {role: profile.get(role, {}).get("size_px", "unknown") for role in sizes_px}
    for theirs, ours in ((profile, {**running, **name_processor(machine)}), (pixels, sizes_px)):
        for key, value in ours.items():
            if theirs.get(key) != value:
                measured = shorten(key, theirs.get(key, "unknown"))
                raise PipelineError(
                    f"{where}: measured with {key} {measured}, this run has {shorten(key, value)}; "
                    "run adaptive-vit profile under the same settings"
                )


def read_costs(path: Path, made_for: Mapping[str, Any], machine: Mapping[str, Any]) -> Costs:
    """Mean milliseconds of one image, from metrics/profile.json.

    Raises PipelineError where they were measured on another processor, or with other weights, another
    precision or other sizes than the embeddings, which may come from another machine and so another backend.
    """
    profile = read_json(path)
    running = {key: made_for.get(key) for key in ("weights_sha256", "precision", "low_precision")}
    check_costs(profile, running, machine, {"low": made_for["low_px"], "high": made_for["high_px"]}, path)
    return Costs(*(profile[role]["latency_ms"]["mean"] for role in ("low", "high")))
