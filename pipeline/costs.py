"""Measured costs hold for the engine that they were measured with, and for no other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError


def check_engine(profile: Mapping[str, Any], backend: str, precision: str, where: Path) -> None:
    """Raise PipelineError where metrics/profile.json was measured with another engine."""
    for key, value in (("backend", backend), ("precision", precision)):
        if profile.get(key) != value:
            raise PipelineError(
                f"{where}: measured with {key} {profile.get(key)}, this run has {value}; "
                "run adaptive-vit profile under the same settings"
            )
