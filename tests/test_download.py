import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from pipeline.archive import open_archive
from pipeline.download import TINY_IMAGENET, bring_archive
from pipeline.errors import PipelineError
from pipeline.https import TransferError, check_url, follow
from pipeline.mirrors import Effort, Remote, download_remote
from stages.download import main
from tests.archives import balanced, members, write_zip
from tests.mirror import DROP_BYTES, Mirror, serve

CLOSED = "http://127.0.0.1:9/archive.zip"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    large = {"train/noise.bin": random.Random(0).randbytes(10 * DROP_BYTES)}
    return write_zip(tmp_path / "source.zip", members(balanced(2), ("n1", "n2")) | large).read_bytes()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Recorder:
    """Progress and waits, written down instead of shown and slept."""

    def __init__(self, free_bytes: int = 1 << 40) -> None:
        self.waits_s: list[float] = []
        self.done: list[int] = []
        self.effort = Effort(tries=3, sleep=self.waits_s.append, free_bytes=lambda _: free_bytes)

    @contextmanager
    def progress(self, label: str, total: int | None, unit: str) -> Iterator[Callable[[int], object]]:
        assert (label, unit, type(total)) == ("download", "B", int)
        self.done.append(0)

        def advance(amount: int) -> None:
            self.done[-1] += amount

        yield advance

    def fetch(self, folder: Path, remote: Remote) -> bytes:
        target = folder / "out" / "archive.zip"
        download_remote(remote, target, folder / "cache", self.progress, self.effort)
        return target.read_bytes()


def remote_of(mirror: Mirror, *more: str) -> Remote:
    return Remote((mirror.url, *more), digest(mirror.content), len(mirror.content))


def test_a_download_arrives_and_its_progress_is_told(tmp_path: Path, content: bytes) -> None:
    recorder = Recorder()
    with serve(Mirror(content)) as mirror:
        assert recorder.fetch(tmp_path, remote_of(mirror)) == content
    assert recorder.done == [len(content)]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{digest(content)}.zip"]


def test_a_drop_is_resumed_where_it_happened(tmp_path: Path, content: bytes) -> None:
    recorder = Recorder()
    with serve(Mirror(content, ["drop", "normal"])) as mirror:
        assert recorder.fetch(tmp_path, remote_of(mirror)) == content
    assert mirror.ranges == [None, f"bytes={DROP_BYTES}-"]
    assert recorder.done == [DROP_BYTES, len(content)]


def test_many_drops_that_each_bring_something_do_not_use_up_the_tries(tmp_path: Path, content: bytes) -> None:
    recorder = Recorder()
    with serve(Mirror(content, ["drop"] * 8 + ["normal"])) as mirror:
        assert recorder.fetch(tmp_path, remote_of(mirror)) == content
    assert recorder.waits_s == [1.0] * 8


def test_a_server_that_ignores_range_is_read_from_the_start(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content, ["drop", "ignore-range"])) as mirror:
        assert Recorder().fetch(tmp_path, remote_of(mirror)) == content
    assert len(mirror.ranges) == 2


def test_a_server_that_ignores_range_and_always_drops_is_given_up(tmp_path: Path, content: bytes) -> None:
    with (
        serve(Mirror(content, ["ignore-range-and-drop"])) as mirror,
        pytest.raises(PipelineError, match=r"connection failed|closed early"),
    ):
        Recorder().fetch(tmp_path, remote_of(mirror))
    assert len(mirror.ranges) == 3


def test_the_next_run_goes_on_from_what_arrived(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content, ["drop", "404", "normal"])) as mirror:
        with pytest.raises(PipelineError, match="answered 404"):
            Recorder().fetch(tmp_path, remote_of(mirror))
        assert Recorder().fetch(tmp_path, remote_of(mirror)) == content
    assert mirror.ranges[2] == f"bytes={DROP_BYTES}-"


def test_busy_servers_are_asked_again_with_back_off(tmp_path: Path, content: bytes) -> None:
    recorder = Recorder()
    with serve(Mirror(content, ["503", "429", "normal"])) as mirror:
        assert recorder.fetch(tmp_path, remote_of(mirror)) == content
    assert recorder.waits_s == [1.0, 2.0]


def test_mirrors_are_tried_in_turn(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content, ["404"])) as first, serve(Mirror(content)) as second:
        remote = Remote((first.url, CLOSED, second.url), digest(content), len(content))
        assert Recorder().fetch(tmp_path, remote) == content
    assert (len(first.paths), len(second.paths)) == (1, 1)


def test_a_web_page_is_no_zip_and_does_not_cost_what_arrived(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content, ["drop", "html", "normal"])) as mirror:
        with pytest.raises(PipelineError, match=r"answered 200, but with no zip \(text/html\)"):
            Recorder().fetch(tmp_path, Remote((mirror.url,), digest(content), None))
        assert Recorder().fetch(tmp_path, remote_of(mirror)) == content
    assert mirror.ranges[2] == f"bytes={DROP_BYTES}-"


def test_a_wrong_digest_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content)) as mirror, pytest.raises(PipelineError) as caught:
        Recorder().fetch(tmp_path, Remote((mirror.url,), "0" * 64, None))
    assert f"sha256 is {digest(content)}, expected {'0' * 64}" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "out/archive.zip").exists()


def test_another_size_is_refused_before_it_is_read(tmp_path: Path, content: bytes) -> None:
    with (
        serve(Mirror(content)) as mirror,
        pytest.raises(PipelineError, match=r"offers \d+ bytes, expected 7"),
    ):
        Recorder().fetch(tmp_path, Remote((mirror.url,), digest(content), 7))


def test_a_spoilt_partial_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content)) as mirror:
        part = tmp_path / "cache" / f"{digest(mirror.url.encode())}.part"
        part.parent.mkdir()
        part.write_bytes(b"PK\x03\x04 something else")
        assert Recorder().fetch(tmp_path, remote_of(mirror)) == content
    assert mirror.ranges[1] is None


def test_a_partial_file_longer_than_the_whole_is_replaced(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content, ["416", "normal"])) as mirror:
        part = tmp_path / "cache" / f"{digest(mirror.url.encode())}.part"
        part.parent.mkdir()
        part.write_bytes(content * 2)
        assert Recorder().fetch(tmp_path, remote_of(mirror)) == content


@pytest.mark.parametrize("etag", ['"version-2"', None, 'W/"weak"'])
def test_without_a_digest_two_versions_are_never_mixed(
    tmp_path: Path, content: bytes, etag: str | None
) -> None:
    newer = write_zip(tmp_path / "newer.zip", members(balanced(22), ("n3", "n4"))).read_bytes()
    with serve(Mirror(content, ["drop", "404", "normal"], etag=etag and '"version-1"')) as mirror:
        remote = Remote((mirror.url,), None, None)
        with pytest.raises(PipelineError, match="no digest given"):
            Recorder().fetch(tmp_path, remote)
        mirror.content, mirror.etag = newer, etag
        assert Recorder().fetch(tmp_path, remote) == newer


def test_a_verified_file_opens_no_connection(tmp_path: Path, content: bytes) -> None:
    remote = Remote((CLOSED,), digest(content), len(content))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{digest(content)}.zip").write_bytes(content)
    assert Recorder(free_bytes=0).fetch(tmp_path, remote) == content
    (tmp_path / "out/archive.zip").unlink()
    assert Recorder(free_bytes=0).fetch(tmp_path, remote) == content


def test_a_file_without_known_digest_is_kept_and_checked_by_its_own(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content)) as mirror:
        remote = Remote((mirror.url,), None, None)
        for _ in range(2):
            assert Recorder().fetch(tmp_path, remote) == content
        assert len(mirror.paths) == 1
        cached = next((tmp_path / "cache").glob("*.zip"))
        cached.write_bytes(content[:-1] + b"x")
        with pytest.raises(PipelineError, match="delete it to download again"):
            Recorder().fetch(tmp_path, remote)


def test_a_wrong_copy_in_the_cache_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{'1' * 64}.zip").write_bytes(content)
    with pytest.raises(PipelineError, match=rf"{'1' * 64}\.zip: sha256 is .* delete it"):
        Recorder().fetch(tmp_path, Remote((CLOSED,), "1" * 64, None))


def test_offline_names_url_digest_and_where_to_put_a_copy(tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(PipelineError) as caught:
        recorder.fetch(tmp_path, Remote((CLOSED, CLOSED + "?2"), "a" * 64, 1234))
    message = str(caught.value)
    assert f"{CLOSED}: connection failed: " in message
    assert "refused" in message
    assert f"{CLOSED}?2: " in message
    assert f"sha256 {'a' * 64}, 1234 bytes" in message
    assert f"put a copy of the file at {tmp_path / 'cache' / ('a' * 64)}.zip" in message
    assert recorder.waits_s == [1.0, 2.0, 1.0, 2.0]


def test_free_space_is_checked_before_the_first_connection(tmp_path: Path) -> None:
    recorder = Recorder(free_bytes=100 << 20)
    with pytest.raises(PipelineError, match=r"100 MiB free, 264 MiB needed; make room"):
        recorder.fetch(tmp_path, Remote((CLOSED,), "a" * 64, 200 << 20))
    assert recorder.waits_s == []


def test_free_space_is_checked_once_the_server_told_the_size(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content)) as mirror, pytest.raises(PipelineError, match="0 MiB free"):
        Recorder(free_bytes=10).fetch(tmp_path, Remote((mirror.url,), None, None))


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a.zip", "ftp://example.org/a.zip", "file:///a.zip", "https://", "https://[1/a.zip"],
)
def test_only_https_is_accepted(url: str) -> None:
    with pytest.raises(PipelineError, match="only https is accepted"):
        check_url(url)


def test_https_and_loopback_pass() -> None:
    for url in ("https://example.org/a.zip", "http://localhost:1/", "http://127.0.0.1/", "http://[::1]:80/"):
        check_url(url)


def test_redirects_never_leave_https() -> None:
    assert follow("https://a.org/x/y", "../z") == "https://a.org/z"
    assert follow("https://a.org/x", "//b.org/y") == "https://b.org/y"
    assert follow("http://localhost/x", "https://b.org/y") == "https://b.org/y"
    for url in ("https://a.org/x", "http://localhost/x"):
        with pytest.raises(TransferError, match="refused"):
            follow(url, "http://b.org/y")
    with pytest.raises(TransferError, match="refused"):
        follow("https://a.org/x", "http://localhost/y")
    with pytest.raises(TransferError, match=r"redirects to http://\[x, which is no URL; refused"):
        follow("https://a.org/x", "http://[x")


def test_a_redirect_to_no_url_is_that_mirrors_failure(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content, ["redirect"], location="http://[x")) as first:
        with pytest.raises(PipelineError, match="redirects to what is no URL"):
            Recorder().fetch(tmp_path, remote_of(first))
        with serve(Mirror(content)) as second:
            assert Recorder().fetch(tmp_path, remote_of(first, second.url)) == content
    assert (len(first.paths), len(second.paths)) == (2, 1)


def test_redirects_are_followed_and_checked_at_each_hop(tmp_path: Path, content: bytes) -> None:
    with serve(Mirror(content, ["redirect", "normal"], location="/moved.zip")) as mirror:
        assert Recorder().fetch(tmp_path, remote_of(mirror)) == content
    assert mirror.paths == ["/archive.zip", "/moved.zip"]
    with (
        serve(Mirror(content, ["redirect"], location="http://example.org/")) as mirror,
        pytest.raises(PipelineError, match=r"redirects to http://example\.org/, which is not https"),
    ):
        Recorder().fetch(tmp_path / "b", remote_of(mirror))
    with (
        serve(Mirror(content, ["redirect"], location="/again")) as mirror,
        pytest.raises(PipelineError, match="more than 10 redirects"),
    ):
        Recorder().fetch(tmp_path / "c", remote_of(mirror))


def test_a_faulty_certificate_is_not_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise requests.exceptions.SSLError("certificate verify failed")

    monkeypatch.setattr(requests.Session, "get", fail)
    recorder = Recorder()
    with pytest.raises(PipelineError, match="TLS failed: certificate verify failed"):
        recorder.fetch(tmp_path, Remote(("https://example.org/a.zip",), "a" * 64, None))
    assert recorder.waits_s == []


def test_proxies_come_from_the_environment(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(Mirror(content)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/archive.zip"))
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NO_PROXY", "")
        assert Recorder().fetch(tmp_path, Remote((CLOSED,), digest(content), None)) == content
    assert proxy.paths == [CLOSED]


def bring(source: str, sha256: str | None = None, destination: Path = Path("out.zip")) -> Path:
    recorder = Recorder()
    bring_archive(source, sha256, destination, recorder.progress, Path("cache"), recorder.effort)
    return destination


def test_a_path_is_verified_and_copied(project: Path, content: bytes) -> None:
    source = project / "source.zip"
    target = bring("source.zip", digest(content))
    assert target.read_bytes() == content
    assert not target.samefile(source)


def refuse_over(target: Path, source: str, sha256: str) -> str:
    """What it says; what lies at the target must still lie there, and nothing beside it."""
    target.parent.mkdir()
    target.write_bytes(b"before")
    with pytest.raises(PipelineError) as caught:
        bring(source, sha256, target)
    assert target.read_bytes() == b"before"
    assert list(target.parent.iterdir()) == [target]
    return str(caught.value)


def test_a_copy_that_went_wrong_is_never_in_place(
    project: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = content[:-1] + b"x"
    monkeypatch.setattr(shutil, "copyfile", lambda _, target: target.write_bytes(spoilt))
    assert refuse_over(project / "raw/archive.zip", "source.zip", digest(content)) == (
        f"source.zip: sha256 is {digest(spoilt)}, expected {digest(content)}; it is another or a damaged file"
    )


def test_a_sample_of_another_digest_is_never_in_place(
    project: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sample.draw_sample", lambda target: target.write_bytes(content))
    assert refuse_over(project / "raw/archive.zip", "sample", "0" * 64) == (
        f"data.source 'sample': sha256 is {digest(content)}, expected {'0' * 64}; "
        "it is another or a damaged file"
    )


@pytest.mark.parametrize(
    ("source", "sha256", "words"),
    [
        ("tiny-imagenets", None, "'tiny-imagenets' does not exist; expected tiny-imagenet, sample"),
        (".", None, "no images found; expected a folder for each class"),
        (".", "0" * 64, "data.sha256: is that of a file, and data.source '.' is a folder"),
        ("params.yaml", None, "not a readable zip"),
        ("source.zip", "0" * 64, "expected 0000"),
        ("http://example.org/a.zip", None, "only https is accepted"),
        ("tiny-imagenet", "0" * 64, "data.sha256"),
    ],
)
@pytest.mark.usefixtures("project", "content")
def test_wrong_sources(source: str, sha256: str | None, words: str) -> None:
    with pytest.raises(PipelineError) as caught:
        bring(source, sha256)
    assert words in str(caught.value)
    assert not Path("out.zip").exists()


def test_a_folder_becomes_an_archive(project: Path) -> None:
    image = project / "photos/cats/1.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"pixels")
    with open_archive(bring("photos")) as archive:
        assert archive.read("cats/1.jpg") == b"pixels"
    assert image.read_bytes() == b"pixels"


def test_a_folder_that_does_not_fit_is_not_packed(project: Path) -> None:
    (project / "photos").mkdir()
    (project / "photos/1.jpg").write_bytes(b"pixels")
    recorder = Recorder(free_bytes=0)
    with pytest.raises(PipelineError, match="MiB needed"):
        bring_archive("photos", None, Path("out.zip"), recorder.progress, Path("cache"), recorder.effort)
    assert not Path("out.zip").exists()


def test_the_sample_needs_no_connection(project: Path) -> None:
    assert bring("sample").stat().st_size > 10_000_000
    assert not (project / "cache").exists()


def test_the_official_archive_is_the_one_of_the_design() -> None:
    assert TINY_IMAGENET.urls[0] == "https://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert TINY_IMAGENET.size_bytes == 248_100_043
    assert TINY_IMAGENET.sha256 == "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"
    assert all(url.startswith("https://") for url in TINY_IMAGENET.urls)


def test_stage_brings_a_path(project: Path, content: bytes) -> None:
    result = CliRunner().invoke(main, ["--set", "source=source.zip"])
    assert result.exit_code == 0, result.output
    assert (project / "data/raw/archive.zip").read_bytes() == content


def test_a_folder_of_other_formats_is_told(project: Path) -> None:
    for name in ("1.jpg", "2.heic", "3.HEIC", "4.gif", ".5.gif"):
        (project / "photos/cats").mkdir(parents=True, exist_ok=True)
        (project / "photos/cats" / name).write_bytes(b"pixels")
    result = CliRunner().invoke(main, ["--set", "source=photos"])
    assert result.exit_code == 0, result.output
    assert "formats that are not read: 1 .gif, 2 .heic" in result.output


@pytest.mark.usefixtures("project")
def test_stage_ends_without_a_traceback() -> None:
    result = CliRunner().invoke(main, ["--set", "data.source=nowhere.zip"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: data.source: 'nowhere.zip' does not exist")
    assert "Traceback" not in result.output
