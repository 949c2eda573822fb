import unicodedata
from pathlib import Path

import pytest

from pipeline.archive import open_archive
from pipeline.layouts import LabelledImage
from tests.archives import ROOT, balanced, jpeg, members, refuse, write_zip

WNIDS = ("n2", "n1")


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


def test_training_images_are_those_of_the_listed_classes(tmp_path: Path) -> None:
    content = members(balanced(1), WNIDS)
    names = ("n2/images/n2_0.JPEG", "n1/images/n1_1.JPEG", "n9/images/n9_0.JPEG", "n1/n1_boxes.txt")
    names += ("n2/n2_1.JPEG", "n2/._n2_1.JPEG")
    content |= {f"{ROOT}train/{name}": jpeg(0) for name in names}
    with open_archive(write_zip(tmp_path / "a.zip", content)) as archive:
        assert archive.training == (
            LabelledImage("train/n1/n1_1.JPEG", "n1", f"{ROOT}train/n1/images/n1_1.JPEG"),
            LabelledImage("train/n2/n2_0.JPEG", "n2", f"{ROOT}train/n2/images/n2_0.JPEG"),
            LabelledImage("train/n2/n2_1.JPEG", "n2", f"{ROOT}train/n2/n2_1.JPEG"),
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


def test_what_is_no_image_by_its_ending_is_refused(tmp_path: Path) -> None:
    """Whatever its size: the limits are of what is read."""
    path = write_zip(tmp_path / "a.zip", members([("val_0.bin", "n1", bytes(100))], ["n1"]))
    refuse(path, "val_annotations.txt, line 1: 'val_0.bin' is no image by its ending; expected .jpg")
    content = members(balanced(1), WNIDS) | {f"{ROOT}train/n1/images/n1_0.bin": bytes(100)}
    with open_archive(write_zip(tmp_path / "b.zip", content)) as archive:
        assert archive.training == ()


def test_annotations_of_images_that_are_in_class_folders_are_refused(tmp_path: Path) -> None:
    """As tools leave them that move the validation images."""
    content = members([("val_0.JPEG", "n1", jpeg(0))], ["n1"], "")
    content["val/n1/val_0.JPEG"] = content.pop("val/images/val_0.JPEG")
    refuse(write_zip(tmp_path / "a.zip", content), "none is in val/images/", "take that text out")


def test_the_layout_elsewhere_is_refused(tmp_path: Path) -> None:
    deep = write_zip(tmp_path / "a.zip", members(balanced(1), WNIDS, "a/b/"))
    refuse(deep, "a/b/val/val_annotations.txt", "inside one folder")
    content = members(balanced(1), WNIDS)
    del content[f"{ROOT}wnids.txt"]
    refuse(write_zip(tmp_path / "b.zip", content), "expected wnids.txt")
