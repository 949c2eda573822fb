import stat
import zipfile
from pathlib import Path

import pytest

from pipeline.archive import open_archive
from pipeline.members import Limits
from tests.archives import ROOT, balanced, members, refuse, write_zip

WNIDS = ("n2", "n1")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../evil", "'..'"),
        ("a/../../evil", "'..'"),
        ("/etc/passwd", "absolute"),
        ("C:/evil", "absolute"),
        ("a\\b", "backslash"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, fault: str) -> None:
    path = write_zip(tmp_path / "a.zip", members(balanced(1), WNIDS) | {name: b""})
    refuse(path, repr(name), fault, "pack the archive again")


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", members(balanced(1), WNIDS))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr(f"{ROOT}wnids.txt", b"n3\n")
    refuse(path, f"'{ROOT}wnids.txt'", "appears twice")


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", members(balanced(1), WNIDS))
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc/passwd")
    refuse(path, "'link'", "symbolic link")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"secret": b"abc"})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 0x1
    path.write_bytes(raw)
    refuse(path, "'secret'", "encrypted")


def test_limits_of_count_size_and_ratio(tmp_path: Path) -> None:
    stored = write_zip(tmp_path / "a.zip", members(balanced(1), WNIDS))
    refuse(stored, "5 members", "limit of 4", limits=Limits(members=4))
    refuse(stored, "more than the limit of 100", limits=Limits(member_bytes=100))
    refuse(stored, "bytes unpacked", "limit of 200", limits=Limits(total_bytes=200))
    bomb = write_zip(tmp_path / "b.zip", {"bomb.jpg": bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    refuse(bomb, "'bomb.jpg'", "to 5000000", "200 to 1")
    plain = {"val/c/a.bmp": bytes(4_000_000), "val/c/b.bmp": bytes(10)}
    with open_archive(write_zip(tmp_path / "c.zip", plain, zipfile.ZIP_DEFLATED)) as opened:
        assert len(opened.labelled) == 2


def test_what_is_not_read_may_be_of_any_size(tmp_path: Path) -> None:
    content = {"cats/1.jpg": b"", "dogs/1.jpg": b"", "model.npy": bytes(5_000_000)}
    path = write_zip(tmp_path / "a.zip", content, zipfile.ZIP_DEFLATED)
    with open_archive(path, Limits(member_bytes=100, total_bytes=200)) as opened:
        assert len(opened.labelled) == 2


def test_what_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("<html>")
    what_to_do = "run download for the archive of data.source, or name a whole zip of your own"
    refuse(tmp_path / "a.zip", "not a readable zip", what_to_do)
    refuse(tmp_path / "missing.zip", "not found", what_to_do)
    refuse(tmp_path, "a folder, expected a zip; `adaptive-vit download --set source=")


@pytest.mark.parametrize(
    "packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damaged_and_missing_members_raise_value_error(tmp_path: Path, packing: int) -> None:
    path = write_zip(tmp_path / "a.zip", members(balanced(1), WNIDS), packing)
    with open_archive(path) as archive:
        name = archive.labelled[0].member
    with zipfile.ZipFile(path) as file:
        start = file.getinfo(name).header_offset + 30 + len(name)
    raw = bytearray(path.read_bytes())
    raw[start : start + 40] = bytes(40)
    path.write_bytes(raw)
    with open_archive(path) as archive:
        with pytest.raises(ValueError, match="cannot be read from the archive"):
            archive.read(archive.labelled[0].member)
        with pytest.raises(ValueError, match="not in the archive"):
            archive.read("nowhere")
