import unicodedata
from pathlib import Path

import pytest

from pipeline.archive import Archive, open_archive
from tests.archives import jpeg, refuse, write_zip


def summarize(archive: Archive) -> dict[str, list[tuple[str, str]]]:
    """Classes, and the ids and classes of the images."""
    return {
        "classes": list(archive.classes),
        "labelled": [(image.image_id, image.wnid) for image in archive.labelled],
        "training": [(image.image_id, image.wnid) for image in archive.training],
    }


def read(folder: Path, *names: str) -> dict[str, list[tuple[str, str]]]:
    with open_archive(write_zip(folder / "a.zip", dict.fromkeys(names, b"pixels"))) as archive:
        assert all(archive.read(image.member) == b"pixels" for image in archive.labelled)
        return summarize(archive)


@pytest.mark.parametrize("root", ["", "pets/", "data/pets/", "./", "./data/"])
def test_a_folder_is_a_class(tmp_path: Path, root: str) -> None:
    found = read(
        tmp_path, f"{root}dogs/1.jpg", f"{root}cats/2.PNG", f"{root}cats/1.jpeg", f"{root}cats/3.webp"
    )
    assert found == {
        "classes": [("cats", "cats"), ("dogs", "dogs")],
        "labelled": [
            *(("cats/1.jpeg", "cats"), ("cats/2.PNG", "cats"), ("cats/3.webp", "cats")),
            ("dogs/1.jpg", "dogs"),
        ],
        "training": [],
    }


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test", "Val"])
@pytest.mark.parametrize("root", ["", "pets/", "data/pets/", "./", "./data/"])
def test_splits_are_kept_apart(tmp_path: Path, root: str, held_out: str) -> None:
    found = read(
        tmp_path, f"{root}train/dogs/1.jpg", f"{root}train/cats/2.jpg", f"{root}{held_out}/cats/1.jpg"
    )
    assert found == {
        "classes": [("cats", "cats"), ("dogs", "dogs")],
        "labelled": [(f"{held_out}/cats/1.jpg", "cats")],
        "training": [("train/cats/2.jpg", "cats"), ("train/dogs/1.jpg", "dogs")],
    }


def test_val_goes_before_test_and_other_folders_beside_splits_are_left(tmp_path: Path) -> None:
    found = read(tmp_path, "test/cats/1.jpg", "val/cats/2.jpg", "train/cats/3.jpg", "drafts/dogs/4.jpg")
    assert found["labelled"] == [("val/cats/2.jpg", "cats")]
    assert found["training"] == [("train/cats/3.jpg", "cats")]


def test_a_class_may_be_called_as_a_split(tmp_path: Path) -> None:
    found = read(tmp_path, "train/1.jpg", "truck/1.jpg")
    assert [wnid for wnid, _ in found["classes"]] == ["train", "truck"]
    assert found["training"] == []


def test_folders_in_a_class_belong_to_it(tmp_path: Path) -> None:
    found = read(tmp_path, "val/cats/grey/1.jpg", "val/cats/black/1.jpg", "val/dogs/1.jpg")
    assert found["labelled"] == [
        ("val/cats/black/1.jpg", "cats"),
        ("val/cats/grey/1.jpg", "cats"),
        ("val/dogs/1.jpg", "dogs"),
    ]


@pytest.mark.parametrize("folder", ["", "val/"])
def test_images_without_folders_have_no_class(tmp_path: Path, folder: str) -> None:
    found = read(tmp_path, f"{folder}2.jpg", f"{folder}1.jpg")
    assert found["classes"] == [("", "")]
    assert found["labelled"] == [(f"{folder}1.jpg", ""), (f"{folder}2.jpg", "")]


def test_folders_of_splits_may_be_spelt_with_capitals(tmp_path: Path) -> None:
    found = read(tmp_path, "Train/cats/1.jpg", "TEST/cats/2.jpg")
    assert found["labelled"] == [("TEST/cats/2.jpg", "cats")]
    assert found["training"] == [("Train/cats/1.jpg", "cats")]


@pytest.mark.parametrize("names", [["./1.jpg"], ["a/./1.jpg"]])
def test_a_point_is_no_hidden_folder(tmp_path: Path, names: list[str]) -> None:
    assert len(read(tmp_path, *names)["labelled"]) == 1


def test_hidden_files_and_texts_are_passed_over(tmp_path: Path) -> None:
    found = read(tmp_path, "cats/1.jpg", "__MACOSX/cats/._1.jpg", "cats/.2.jpg", "notes.txt", "cats/list.csv")
    assert found["labelled"] == [("cats/1.jpg", "cats")]


def test_words_name_the_classes(tmp_path: Path) -> None:
    content = {"a/n1/1.jpg": b"", "a/n2/1.jpg": b"", "a/words.txt": b"n2\ttabby, tabby cat\nn9\tunused\n"}
    with open_archive(write_zip(tmp_path / "a.zip", content)) as archive:
        assert archive.classes == (("n1", "n1"), ("n2", "tabby, tabby cat"))


def test_an_accent_may_be_packed_as_a_letter_of_its_own(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "chèvre") for form in ("NFC", "NFD"))
    assert read(tmp_path, f"{apart}/1.jpg")["labelled"] == [(f"{composed}/1.jpg", composed)]
    both = write_zip(tmp_path / "b.zip", dict.fromkeys((f"{apart}/1.jpg", f"{composed}/1.jpg"), b""))
    refuse(both, f"{composed}/1.jpg is there twice")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no images found; expected a folder for each class (val/<class>/<image>"),
        (["notes/readme.txt", "a.gif"], "found a.gif, notes/readme.txt"),
        (["train/cats/1.jpg", "train/dogs/1.jpg"], "holds images to train on alone, in train/"),
        (["a/train/cats/1.jpg"], "holds images to train on alone, in a/train/"),
        (["cats/1.jpg", "2.jpg"], "2.jpg is in no class folder, others are"),
        (["val/cats/1.jpg", "val/2.jpg"], "val/2.jpg is in no class folder, others are"),
        (["train/cats/1.jpg", "val/images/1.jpg"], "class folder 'images' of val/ is not in train/"),
        (["train/cats/1.jpg", "test/1.jpg"], "test/ has no class folders, train/ has"),
        (
            ["birds/Train/a/1.jpg", "birds/val/a/1.jpg", "pets/train/b/1.jpg"],
            "birds/, which would be a class, holds Train/ and more",
        ),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, names: list[str], words: str) -> None:
    refuse(write_zip(tmp_path / "a.zip", dict.fromkeys(names, jpeg(0))), words)
