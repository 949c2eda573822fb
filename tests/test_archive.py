import stat
import unicodedata
import zipfile
from pathlib import Path

import pytest

from pipeline.archive import LabelledImage, Limits, open_archive
from pipeline.errors import PipelineError
from tests.archives import ROOT, balanced, jpeg, members, write_zip

WNIDS = ("n2", "n1")


def refuse(path: Path, *words: str, limits: Limits | None = None) -> str:
    """The error of opening `path`, which must name the file and hold all `words`."""
    with pytest.raises(PipelineError) as caught, open_archive(path, limits or Limits()):
        pass
    message = str(caught.value)
    assert all(word in message for word in (str(path), *words)), message
    return message


@pytest.mark.parametrize("root", ["", "tiny-imagenet-200/", "other/"])
def test_layout_is_found_with_any_root(tmp_path: Path, root: str) -> None:
    path = write_zip(tmp_path / "a.zip", members(balanced(1), WNIDS, root))
    with open_archive(path) as archive:
        assert archive.classes == (("n1", "name of n1"), ("n2", "name of n2"))
        assert archive.labelled == (
            LabelledImage("val/val_0.JPEG", "n2", f"{root}val/images/val_0.JPEG"),
            LabelledImage("val/val_1.JPEG", "n1", f"{root}val/images/val_1.JPEG"),
        )
        assert archive.read(archive.labelled[0].member) == jpeg(0)


def test_words_are_optional_and_reduced_to_the_classes(tmp_path: Path) -> None:
    content = members(balanced(1), WNIDS)
    content[f"{ROOT}words.txt"] = b"n1\tgoldfish, Carassius auratus\r\nn9\tunused\r\n"
    with open_archive(write_zip(tmp_path / "a.zip", content)) as archive:
        assert archive.classes == (("n1", "goldfish, Carassius auratus"), ("n2", "n2"))
    del content[f"{ROOT}words.txt"]
    with open_archive(write_zip(tmp_path / "b.zip", content)) as archive:
        assert archive.classes == (("n1", "n1"), ("n2", "n2"))


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
    bomb = write_zip(tmp_path / "b.zip", {"bomb": bytes(1_000_000)}, zipfile.ZIP_DEFLATED)
    refuse(bomb, "'bomb'", "to 1000000", "200 to 1")


def test_another_layout_says_what_was_found(tmp_path: Path) -> None:
    refuse(write_zip(tmp_path / "a.zip", {"cats/1.jpg": b"", "dogs/1.jpg": b""}), "wnids.txt", "cats/1.jpg")
    refuse(write_zip(tmp_path / "b.zip", {}), "no members at all")
    deep = write_zip(tmp_path / "c.zip", members(balanced(1), WNIDS, "a/b/"))
    refuse(deep, "inside one folder", "a/b")


def test_the_layout_twice_is_refused(tmp_path: Path) -> None:
    both = members(balanced(1), WNIDS, "a/") | members(balanced(1), WNIDS, "b/")
    refuse(write_zip(tmp_path / "a.zip", both), "more than once", "a/, b/")


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        (b"val_0.JPEG\tn1\t0\t0\t7\t7\nval_1.JPEG\n", ("line 2", "'val_1.JPEG'")),
        (b"\nval_0.JPEG\tn7\t0\t0\t7\t7\n", ("line 2", "'n7'", "wnids.txt")),
        (b"../val_0.JPEG\tn1\n", ("line 1", "expected")),
        (b"val_0.JPEG\tn1\nval_1.JPEG\tn1\nval_0.JPEG\tn2\n", ("line 3", "second time")),
        (b"\n", ("annotates no image",)),
        (b"\xff\xfe\n", ("UTF-8",)),
    ],
)
def test_malformed_annotations_name_the_line(
    tmp_path: Path, annotations: bytes, words: tuple[str, ...]
) -> None:
    content = members(balanced(1), WNIDS) | {f"{ROOT}val/val_annotations.txt": annotations}
    refuse(write_zip(tmp_path / "a.zip", content), "val_annotations.txt", *words)


@pytest.mark.parametrize(("wnids", "words"), [(b"", "no class"), (b"n1\nn2\nn1\n", "'n1' is listed twice")])
def test_malformed_classes(tmp_path: Path, wnids: bytes, words: str) -> None:
    content = members(balanced(1), WNIDS) | {f"{ROOT}wnids.txt": wnids}
    refuse(write_zip(tmp_path / "a.zip", content), "wnids.txt", words)


def test_what_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("<html>")
    what_to_do = "run download for the archive of data.source, or name a whole zip of your own"
    refuse(tmp_path / "a.zip", "not a readable zip", what_to_do)
    refuse(tmp_path / "missing.zip", "not found", what_to_do)


def test_damaged_and_missing_members_raise_value_error(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", members(balanced(1), WNIDS))
    raw = bytearray(path.read_bytes())
    raw[raw.index(jpeg(0)) + 300] ^= 0xFF
    path.write_bytes(raw)
    with open_archive(path) as archive:
        with pytest.raises(ValueError, match="damaged in the archive"):
            archive.read(archive.labelled[0].member)
        with pytest.raises(ValueError, match="not in the archive"):
            archive.read("nowhere")


def test_training_images_are_those_of_the_listed_classes(tmp_path: Path) -> None:
    content = members(balanced(1), WNIDS)
    names = ("n2/images/n2_0.JPEG", "n1/images/n1_1.JPEG", "n9/images/n9_0.JPEG", "n1/n1_boxes.txt")
    content |= {f"{ROOT}train/{name}": jpeg(0) for name in names}
    with open_archive(write_zip(tmp_path / "a.zip", content)) as archive:
        assert archive.training == (
            LabelledImage("train/n1/n1_1.JPEG", "n1", f"{ROOT}train/n1/images/n1_1.JPEG"),
            LabelledImage("train/n2/n2_0.JPEG", "n2", f"{ROOT}train/n2/images/n2_0.JPEG"),
        )


def test_lines_may_end_as_any_system_ends_them(tmp_path: Path) -> None:
    for end in (b"\r", b"\r\n"):
        content = members(balanced(2), ["n1", "n2"])
        texts = {name: data.replace(b"\n", end) for name, data in content.items() if name.endswith(".txt")}
        with open_archive(write_zip(tmp_path / "a.zip", content | texts)) as archive:
            assert [wnid for wnid, _ in archive.classes] == ["n1", "n2"]
            assert len(archive.labelled) == 4


def test_an_accent_may_be_packed_as_a_letter_of_its_own(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "pétale.JPEG") for form in ("NFC", "NFD"))
    content = members([(apart, "n1", b"pixels")], ["n1"])
    annotations = f"{ROOT}val/val_annotations.txt"
    content[annotations] = content[annotations].replace(apart.encode(), composed.encode())
    with open_archive(write_zip(tmp_path / "a.zip", content)) as archive:
        assert archive.labelled[0].image_id == f"val/{composed}"
        assert archive.read(archive.labelled[0].member) == b"pixels"
