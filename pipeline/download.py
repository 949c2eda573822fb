"""The archive, wherever it comes from: the official one with its mirrors, the sample, a path or a URL."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.folders import measure_folder, pack_folder
from pipeline.mirrors import DEFAULT_EFFORT, Effort, Remote, check_file, download_remote
from pipeline.outside import find_outside
from pipeline.transfer import Progress, require_space

CACHE = Path(".cache/download")

TINY_IMAGENET = Remote(
    urls=(
        "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
        # Public code records the md5 of the official archive for the next two.
        "https://zenodo.org/records/10720917/files/tiny-imagenet-200.zip?download=1",
        "https://huggingface.co/datasets/cnak47/cv-datasets/resolve/main/tiny-imagenet-200.zip",
    ),
    sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
    size_bytes=248_100_043,
)


@contextmanager
def _checked_file(destination: Path, sha256: str | None, source: str) -> Iterator[Path]:
    """As `whole_file`, but only what `check_file` accepts takes the place of what was there before."""
    with whole_file(destination) as temporary:
        yield temporary
        try:
            check_file(temporary, sha256)
        except PipelineError as error:  # Which names a file that is gone once it is read.
            raise PipelineError(str(error).replace(str(temporary), source)) from None


def copy_local(source: Path, sha256: str | None, destination: Path, effort: Effort) -> None:
    """A verified copy of a zip of the user's; the original is neither linked nor touched."""
    if not source.is_file():
        raise PipelineError(
            f"data.source: {str(source)!r} does not exist; expected tiny-imagenet, sample, "
            "the path of a folder or a zip of images, or the https URL of a zip"
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    require_space(destination.parent, source.stat().st_size, effort.free_bytes)
    with _checked_file(destination, sha256, str(source)) as temporary:
        shutil.copyfile(source, temporary)


def pack_local(source: Path, sha256: str | None, destination: Path, effort: Effort) -> None:
    """A folder of the user's as an archive; nothing in it is touched."""
    if sha256:
        raise PipelineError(f"data.sha256: is that of a file, and data.source {str(source)!r} is a folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    require_space(destination.parent, measure_folder(source), effort.free_bytes)
    pack_folder(source, destination)


def _draw_checked(destination: Path, sha256: str | None) -> None:
    from pipeline.sample import draw_sample  # And torch with it, which nothing else here needs.

    with _checked_file(destination, sha256, "data.source 'sample'") as temporary:
        draw_sample(temporary)


def bring_archive(
    source: str,
    sha256: str | None,
    destination: Path,
    progress: Progress,
    cache: Path = CACHE,
    effort: Effort = DEFAULT_EFFORT,
) -> None:
    """Bring the archive that `source` names to `destination`, verified; see DataParams for the values."""
    if source == "tiny-imagenet":
        if sha256 not in (None, TINY_IMAGENET.sha256):
            raise PipelineError(
                f"data.sha256: {sha256} is not that of tiny-imagenet; leave it null, or name another source"
            )
        download_remote(TINY_IMAGENET, destination, cache, progress, effort)
    elif source == "sample":
        _draw_checked(destination, sha256)
    elif "://" in source:
        download_remote(Remote((source,), sha256, None), destination, cache, progress, effort)
    else:
        path = find_outside(source)
        bring = pack_local if path.is_dir() else copy_local
        bring(path, sha256, destination, effort)
