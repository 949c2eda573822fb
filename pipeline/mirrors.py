"""One file from several mirrors: retries with back-off, the digest, and a cache that outlives DVC's runs.

DVC deletes a stage's outs before it runs the stage, so partial and verified files lie in a folder of
their own. A file that lies there and is verified is used without a connection.
"""

import hashlib
import shutil
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import read_json, sha256_of, whole_file, write_json
from pipeline.https import TransferError, check_url
from pipeline.transfer import Progress, drop, fetch_part, require_space


@dataclass(frozen=True)
class Remote:
    """The same bytes under every one of `urls`, tried in this order."""

    urls: tuple[str, ...]
    sha256: str | None
    size_bytes: int | None


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class Effort:
    """How hard to try: tries in a row that bring nothing new, and the wait that doubles between them."""

    tries: int = 4
    first_wait_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    free_bytes: Callable[[Path], int] = _free_bytes


DEFAULT_EFFORT = Effort()


def check_file(path: Path, sha256: str | None) -> None:
    """Raise PipelineError unless `path` is a readable zip of the digest asked for (None: of any)."""
    found = sha256_of(path) if sha256 else None
    if found != sha256:
        raise PipelineError(f"{path}: sha256 is {found}, expected {sha256}; it is another or a damaged file")
    try:
        zipfile.ZipFile(path).close()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: not a readable zip ({error}); expected a whole archive") from None


def cached_path(remote: Remote, cache: Path) -> Path:
    """Where the verified file lies, and where a user may put a copy of it."""
    return cache / f"{remote.sha256 or _digest_url(remote.urls[0])}.zip"


def _digest_url(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def _receipt_path(cached: Path) -> Path:
    """Keeps the digest of a file that was downloaded without a known one."""
    return cached.with_suffix(".json")


def _check_cached(cached: Path, sha256: str | None) -> None:
    if sha256 is None and _receipt_path(cached).exists():
        sha256 = read_json(_receipt_path(cached)).get("sha256")
    try:
        check_file(cached, sha256)
    except PipelineError as error:
        raise PipelineError(f"{error}; delete it to download again, or replace it") from None


def _try_until_whole(url: str, part: Path, remote: Remote, progress: Progress, effort: Effort) -> None:
    """Repeat the request until `part` is whole; a try that brought the file further starts the count anew."""
    furthest, failures = 0, 0
    while True:
        try:
            fetch_part(url, part, remote.size_bytes, remote.sha256 is not None, progress, effort.free_bytes)
            return
        except TransferError as error:
            size = part.stat().st_size if part.exists() else 0
            failures = 1 if size > furthest else failures + 1
            furthest = max(furthest, size)
            if not error.again or failures >= effort.tries:
                raise
        effort.sleep(effort.first_wait_s * 2 ** (failures - 1))


def _download_from(url: str, part: Path, remote: Remote, progress: Progress, effort: Effort) -> None:
    """A whole and verified `part`, or TransferError; where an old part spoilt it, once more without."""
    resumed = part.exists()
    _try_until_whole(url, part, remote, progress, effort)
    try:
        check_file(part, remote.sha256)
    except PipelineError as error:
        drop(part)
        if resumed:
            return _download_from(url, part, remote, progress, effort)
        raise TransferError(f"sent the wrong file: {error}", again=False) from None


def _explain_failure(remote: Remote, cached: Path, failures: list[str]) -> PipelineError:
    tried = "\n".join(f"  {failure}" for failure in failures)
    digest = f"sha256 {remote.sha256}" if remote.sha256 else "no digest given: set data.sha256 to require one"
    size = f", {remote.size_bytes} bytes" if remote.size_bytes else ""
    return PipelineError(
        f"data.source: the archive could not be downloaded:\n{tried}\n"
        f"  expected: {digest}{size}\n"
        f"Without a connection: put a copy of the file at {cached} and run again. "
        "What has arrived is kept, and the next run goes on from there."
    )


def _download(remote: Remote, cache: Path, progress: Progress, effort: Effort) -> Path:
    cached = cached_path(remote, cache)
    failures = []
    for url in remote.urls:
        part = cache / f"{_digest_url(url)}.part"
        had_bytes = part.stat().st_size if part.exists() else 0
        require_space(cache, (remote.size_bytes or 0) - had_bytes, effort.free_bytes)
        try:
            _download_from(url, part, remote, progress, effort)
        except TransferError as error:
            failures.append(f"{url}: {error}")
            continue
        if remote.sha256 is None:
            write_json(_receipt_path(cached), {"sha256": sha256_of(part), "url": url})
        part.replace(cached)
        drop(part)
        return cached
    raise _explain_failure(remote, cached, failures)


def _place(cached: Path, destination: Path, effort: Effort) -> None:
    """A second name for the same bytes where the file system allows it, else a copy."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.unlink(missing_ok=True)
    with suppress(OSError):
        destination.hardlink_to(cached)
        return
    require_space(destination.parent, cached.stat().st_size, effort.free_bytes)
    with whole_file(destination) as temporary:
        shutil.copyfile(cached, temporary)


def download_remote(
    remote: Remote, destination: Path, cache: Path, progress: Progress, effort: Effort
) -> None:
    """Bring the verified file to `destination`; opens no connection where `cache` has it already."""
    for url in remote.urls:
        check_url(url)
    cache.mkdir(parents=True, exist_ok=True)
    cached = cached_path(remote, cache)
    if cached.exists():
        _check_cached(cached, remote.sha256)
    else:
        cached = _download(remote, cache, progress, effort)
    _place(cached, destination, effort)
