"""What was made from what, so that tables and costs of two data sets or two models are never mixed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.embeddings import precisions_of, read_set_fingerprint
from pipeline.errors import PipelineError, shorten
from pipeline.files import read_json, sha256_of
from pipeline.tables import read_fingerprint

# The keys of the deltas' fingerprint that metrics/environment.json has as well, beside the sizes.
_SHARED = ("images_sha256", "weights_sha256")


def check_deltas(deltas: Path, low: Path) -> None:
    """Refuse deltas that were made from other low embeddings than the folder holds."""
    if read_fingerprint(deltas).get("low") != read_set_fingerprint(low, "low"):
        raise PipelineError(f"{deltas}: made from other low embeddings than {low}; run delta again")


def check_running(deltas: Path, environment: Mapping[str, Any]) -> None:
    """Refuse deltas of other images, another model or other settings than a replay is about to run with."""
    if differing := _find_difference(deltas, environment):
        key, made, running = differing
        raise PipelineError(
            f"{deltas}: made with {key} {made}, this run has {running}; "
            "run extract, delta and fit under the same settings"
        )


def check_replayed(deltas: Path, environment: Path) -> None:
    """Refuse deltas of other images, another model or other settings than those whose replay is on disk."""
    if differing := _find_difference(deltas, read_json(environment)):
        key, made, replayed = differing
        raise PipelineError(
            f"{deltas}: made with {key} {made}, but {environment} says that the costs were measured with "
            f"{replayed}; run adaptive-vit replay"
        )


def check_policy(replay: Path, policy: Path) -> None:
    """Refuse a table of a replay that ran another policy than the file holds."""
    if read_fingerprint(replay).get("policy_sha256") != sha256_of(policy):
        raise PipelineError(f"{replay}: ran another policy than {policy} holds now; run adaptive-vit replay")


def _find_difference(deltas: Path, environment: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first key that differs, with the value of the deltas and that of the environment."""
    fingerprint, sizes_px = read_fingerprint(deltas), environment.get("sizes_px", {})
    made = {key: fingerprint["low"].get(key) for key in _SHARED} | precisions_of(fingerprint["low"])
    made |= {f"{role}_px": fingerprint[role]["size_px"] for role in ("low", "high")}
    measured = {key: environment.get(key, "unknown") for key in (*_SHARED, "precision")}
    measured["low_precision"] = environment.get("low_precision")
    measured |= {f"{role}_px": sizes_px.get(role, "unknown") for role in ("low", "high")}
    differing = [key for key, value in made.items() if measured[key] != value]
    return next(((key, shorten(key, made[key]), shorten(key, measured[key])) for key in differing), None)
