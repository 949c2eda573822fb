"""Measured costs hold for the conditions that they were measured under, and for no others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.thresholds import Costs


def check_costs(
    profile: Mapping[str, Any], running: Mapping[str, Any], sizes_px: Mapping[str, int], where: Path
) -> None:
    """Raise PipelineError where metrics/profile.json was measured under other conditions, or at other sizes.

    running: such as backend, precision, threads and processor, by the names that the profile has them under.
    """
    found = {key: profile.get(key) for key in running}
    pixels = {role: profile.get(role, {}).get("size_px") for role in sizes_px}
    for theirs, ours in ((found, running), (pixels, sizes_px)):
        for key, value in ours.items():
            if theirs[key] != value:
                raise PipelineError(
                    f"{where}: measured with {key} {theirs[key]}, this run has {value}; "
                    "run adaptive-vit profile under the same settings"
                )


def read_costs(path: Path, made_for: Mapping[str, Any], processor: str) -> Costs:
    """Mean milliseconds of one image, from metrics/profile.json.

    Raises PipelineError where they were measured on another processor, or with another precision or other
    sizes than the embeddings, which may come from another machine and so from another backend.
    """
    profile = read_json(path)
    running = {"precision": made_for["precision"], "processor": processor}
    check_costs(profile, running, {"low": made_for["low_px"], "high": made_for["high_px"]}, path)
    return Costs(*(profile[role]["latency_ms"]["mean"] for role in ("low", "high")))
