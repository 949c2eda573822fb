"""One URL to one file: resumed after a drop, with every answer of the server checked.

The partial file survives a killed run; beside it `<name>.json` keeps what identifies the version that
the server sent, so that a resumed file never mixes two versions.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path

import requests

from pipeline.errors import PipelineError
from pipeline.files import read_json, write_json
from pipeline.https import TransferError, open_url, requests_errors

CHUNK_BYTES = 1 << 16  # a drop loses what has arrived of its chunk
RESERVE_BYTES = 64 << 20  # a disk is not filled to its last byte
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")

# Called with label, total (None where unknown) and unit; yields a function to call with the units done.
Progress = Callable[[str, int | None, str], AbstractContextManager[Callable[[int], object]]]


def require_space(folder: Path, needed_bytes: int, free_bytes: Callable[[Path], int]) -> None:
    free = free_bytes(folder)
    if free < needed_bytes + RESERVE_BYTES:
        raise PipelineError(
            f"{folder}: {free >> 20} MiB free, {(needed_bytes + RESERVE_BYTES) >> 20} MiB needed; "
            "make room, or move the project to a larger disk"
        )


def drop(part: Path) -> None:
    """Forget a partial file and the version that it belongs to."""
    part.unlink(missing_ok=True)
    _version_path(part).unlink(missing_ok=True)


def _size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _version_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _version_of(response: requests.Response) -> str | None:
    """What If-Range accepts: a strong ETag or a date; a weak ETag promises nothing about bytes."""
    etag = response.headers.get("ETag", "")
    strong = etag if etag and not etag.startswith("W/") else None
    return strong or response.headers.get("Last-Modified")


def _request_headers(part: Path, digest_known: bool) -> dict[str, str]:
    """Ask for the rest where the version is known or a digest will tell; else for everything."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "adaptive-vit"}
    had_bytes = _size_of(part)
    if had_bytes == 0:
        return headers
    version = None
    if _version_path(part).exists():
        version = read_json(_version_path(part)).get("version")
    if version or digest_known:
        headers["Range"] = f"bytes={had_bytes}-"
    if version:
        headers["If-Range"] = str(version)
    return headers


def _start_and_total(response: requests.Response, part: Path) -> tuple[int, int | None]:
    """Where the body starts in the whole file, and the size of the whole where the server says."""
    had_bytes = _size_of(part)
    status = response.status_code
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != had_bytes:
            drop(part)
            raise TransferError("answered another range than the one asked for", again=True)
        return had_bytes, None if match[2] == "*" else int(match[2])
    if status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    if status == 416:
        drop(part)
    again = status in (408, 416, 425, 429) or status >= 500
    raise TransferError(f"answered {status} {response.reason}", again=again)


def _read_chunks(response: requests.Response) -> Iterator[bytes]:
    with requests_errors():
        yield from response.iter_content(CHUNK_BYTES)


def _start_anew(response: requests.Response, part: Path, first: bytes) -> None:
    """Give up what an earlier request left, but only once the new answer looks like the file."""
    if first and not first.startswith(ZIP_STARTS):
        kind = response.headers.get("Content-Type", "unknown type")
        raise TransferError(f"answered {response.status_code}, but with no zip ({kind})", again=False)
    drop(part)
    write_json(_version_path(part), {"version": _version_of(response)})


def _append(
    response: requests.Response, part: Path, start: int, total: int | None, progress: Progress
) -> None:
    chunks = _read_chunks(response)
    first = next(chunks, b"")
    if start == 0:
        _start_anew(response, part, first)
    done = start
    with part.open("ab") as file, progress("download", total, "B") as advance:
        advance(start)
        for chunk in chain([first], chunks):
            done += len(chunk)
            if total is not None and done > total:
                raise TransferError(f"sent more than the {total} bytes expected", again=False)
            file.write(chunk)
            advance(len(chunk))
    if done == 0 or (total is not None and done < total):
        raise TransferError(f"closed early, at {done} of {total or 'unknown'} bytes", again=True)


def fetch_part(
    url: str,
    part: Path,
    size_bytes: int | None,
    digest_known: bool,
    progress: Progress,
    free_bytes: Callable[[Path], int],
) -> None:
    """One request that brings `part` to its end, from where an earlier one left it.

    `size_bytes` is the size that the whole file must have, where known. Raises TransferError where the
    server does not deliver, PipelineError where the disk has no room.
    """
    if size_bytes is not None and _size_of(part) == size_bytes:
        return
    headers = _request_headers(part, digest_known)
    with requests.Session() as session, open_url(session, url, headers) as response:
        start, total = _start_and_total(response, part)
        if size_bytes is not None and total not in (None, size_bytes):
            raise TransferError(f"offers {total} bytes, expected {size_bytes}", again=False)
        require_space(part.parent, (total or size_bytes or 0) - start, free_bytes)
        _append(response, part, start, total or size_bytes, progress)
