"""Files that are either whole or absent, their digests, and the metrics JSON."""

import csv
import errno
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

_WRITER = "run the stage that writes it (see dvc.yaml)"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, synced and renamed to `path` only on success.

    Raises PipelineError where the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    temporary.touch(exist_ok=False)
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(mode)  # Some libraries put a file of their own in its place.
        temporary.replace(path)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise PipelineError(
            f"{path}: no room left on its disk; free some and run this again (nothing half-written is left)"
        ) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; {_WRITER}") from None


def format_json(document: Mapping[str, Any]) -> str:
    """In the order of the document, indented, without NaN: a key whose value is NaN or None is left out."""
    return json.dumps(_without_gaps(document), indent=2, allow_nan=False) + "\n"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """As `format_json` has it."""
    with whole_file(path) as temporary:
        temporary.write_text(format_json(document), encoding="utf-8")


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Columns of equal length, numbers at full precision."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; raises PipelineError naming the file where there is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; {_WRITER}") from None
    except ValueError as error:
        raise PipelineError(f"{path}: not valid JSON ({error}); run the stage that writes it again") from None
    if not isinstance(document, dict):
        raise PipelineError(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


def _without_gaps(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_gaps(item) for key, item in value.items() if not _is_gap(item)}
    if isinstance(value, list):
        return [_without_gaps(item) for item in value]
    return value


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
