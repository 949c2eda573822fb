"""Reading a set of embedding shards, verified: one role, one fingerprint, every image once."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.files import sha256_of
from pipeline.proxies import Proxy
from pipeline.tables import iter_batches, read_fingerprint, vectors

# The fingerprint's keys that describe how, not on what, the model ran.
CONDITIONS = ("weights_sha256", "transform", "precision", "backend", "canvas_px")


def shard_paths(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise PipelineError(f"{folder}: holds no part-*.parquet; run extract for this role")
    return paths


def read_set_fingerprint(folder: Path, role: str) -> dict[str, Any]:
    """The fingerprint that all shards of `folder` share; refuses a mixed set and the wrong role."""
    first, *others = shard_paths(folder)
    fingerprint = read_fingerprint(first)
    if fingerprint.get("role") != role:
        raise PipelineError(f"{first}: holds role {fingerprint.get('role')!r}, expected {role!r}")
    for path in others:
        if read_fingerprint(path) != fingerprint:
            raise PipelineError(f"{path}: made under other settings than {first.name}; run extract again")
    return fingerprint


def precisions_of(low: Mapping[str, Any]) -> dict[str, str | None]:
    """What runtime.precision and low_precision were, by low's fingerprint; None: low had no other."""
    own, of_high = low.get("precision"), low.get("high_precision")
    return {"precision": of_high or own, "low_precision": own if of_high else None}


def check_pair(low: Mapping[str, Any], high: Mapping[str, Any]) -> None:
    """Refuse embeddings that differ in more than the role, and in the precision that low was asked for."""
    expected = {**low, "precision": precisions_of(low)["precision"]}
    if "high_precision" in low:  # Then each has the backend that its precision runs on.
        expected["backend"] = high.get("backend")
    for key in (*CONDITIONS, "images_sha256"):
        if expected.get(key) != high.get(key):
            raise PipelineError(
                f"the embeddings do not belong together: {key} is {expected.get(key)} for low and "
                f"{high.get(key)} for high; run extract for both roles under the same settings"
            )


def check_images(folder: Path, images: Path) -> None:
    """Refuse low embeddings of other images than the table holds."""
    if read_set_fingerprint(folder, "low").get("images_sha256") != sha256_of(images):
        raise PipelineError(
            f"{folder}: made from other images than {images} holds now; run extract, delta and fit again"
        )


def iter_embeddings(folder: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of `columns` over all shards, in file order."""
    for path in shard_paths(folder):
        yield from iter_batches(path, columns)


def measure_proxies(
    folder: Path, proxies: Mapping[str, Proxy]
) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Image ids and what each function returns, (N,) or (N, F), of the low pass's stored trace and logits.

    Raises PipelineError where an image is missing or there twice.
    """
    fingerprint = read_set_fingerprint(folder, "low")
    states = int(fingerprint["trace_states"])
    ids: list[str] = []
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in proxies}
    for batch in iter_embeddings(folder, ["image_id", "trace", "logits"]):
        trace, logits = vectors(batch["trace"]).reshape(len(batch), states, -1), vectors(batch["logits"])
        for name, proxy in proxies.items():
            parts[name].append(proxy(trace, logits).astype(np.float64))
        ids.extend(batch["image_id"].to_pylist())
    _check_whole(folder, ids, fingerprint)
    return ids, {name: np.concatenate(values) for name, values in parts.items()}


def _check_whole(folder: Path, ids: list[str], fingerprint: Mapping[str, Any]) -> None:
    different, expected = len(set(ids)), fingerprint.get("images", len(ids))
    if not different == len(ids) == expected:
        raise PipelineError(
            f"{folder}: holds {len(ids)} rows of {different} images, expected {expected}; run extract again"
        )


def measure_proxy(folder: Path, proxy: Proxy) -> tuple[list[str], NDArray[np.float64]]:
    """Image ids and the values (N,) of one proxy, in file order."""
    ids, values = measure_proxies(folder, {"proxy": proxy})
    return ids, values["proxy"]
