"""Folders of images as archives."""

import os
from pathlib import Path

import pytest

from pipeline.archive import open_archive
from pipeline.errors import PipelineError
from pipeline.folders import find_files, identify_folder, measure_folder, pack_folder
from pipeline.members import Limits


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    folder = tmp_path / "pets"
    for name in (
        "dogs/1.jpg",
        "cats/1.jpg",
        "cats/2.PNG",
        "words.txt",
        "cats/.3.jpg",
        ".git/4.jpg",
        "readme.md",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_files(folder)]


def test_images_and_texts_of_the_layouts_are_found(pets: Path) -> None:
    assert names(pets) == ["cats/1.jpg", "cats/2.PNG", "dogs/1.jpg", "words.txt"]


def test_a_link_to_nothing_is_named(pets: Path, tmp_path: Path) -> None:
    (pets / "dogs/3.jpg").symlink_to(tmp_path / "gone.jpg")
    for ask in (identify_folder, measure_folder):
        with pytest.raises(
            PipelineError, match=r"dogs/3.jpg: a link to .*gone.jpg, which is not there; mend"
        ):
            ask(pets)


def test_links_are_followed_but_not_round(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds/1.jpg").write_bytes(b"bird")
    (pets / "birds").symlink_to(tmp_path / "birds")
    (pets / "dogs/2.jpg").symlink_to(pets / "dogs/1.jpg")
    assert names(pets) == ["birds/1.jpg", "cats/1.jpg", "cats/2.PNG", "dogs/1.jpg", "dogs/2.jpg", "words.txt"]
    found = names(pets)
    (pets / "dogs/all").symlink_to(pets)
    (pets / "dogs/same").symlink_to(pets / "dogs")
    assert names(pets) == found


def test_the_archive_holds_the_files(pets: Path, tmp_path: Path) -> None:
    pack_folder(pets, tmp_path / "a.zip")
    with open_archive(tmp_path / "a.zip") as archive:
        assert [image.image_id for image in archive.labelled] == ["cats/1.jpg", "cats/2.PNG", "dogs/1.jpg"]
        assert archive.read("cats/2.PNG") == b"cats/2.PNG"


def test_times_do_not_change_the_archive_but_are_noticed(pets: Path, tmp_path: Path) -> None:
    pack_folder(pets, tmp_path / "a.zip")
    before = identify_folder(pets)
    assert identify_folder(pets) == before
    os.utime(pets / "cats/1.jpg", (1, 1))
    pack_folder(pets, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert identify_folder(pets) != before


def test_what_no_archive_would_hold_is_refused_before_it_is_written(pets: Path, tmp_path: Path) -> None:
    assert measure_folder(pets) == sum(len(name) for name in names(pets))
    with pytest.raises(PipelineError, match="more than the limit of 10; name the folder of the validation"):
        measure_folder(pets, Limits(total_bytes=10))
    with pytest.raises(PipelineError, match=r"cats/1.jpg: has 10 bytes, more than the limit of 9"):
        measure_folder(pets, Limits(member_bytes=9))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match="empty: no images found; expected a folder for each class"):
        measure_folder(tmp_path / "empty")


def test_a_name_that_no_zip_can_hold_leaves_nothing(pets: Path, tmp_path: Path) -> None:
    (pets / "dogs/1.jpg").rename(os.fsdecode(os.fsencode(pets / "dogs") + b"/\xff.jpg"))
    with pytest.raises(PipelineError, match=r"the name of dogs/\?.jpg is no UTF-8; rename it"):
        pack_folder(pets, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == [pets]


@pytest.mark.parametrize(
    ("name", "fault"), [("a\\b.jpg", "has a backslash"), ("c:/1.jpg", "an absolute name")]
)
def test_names_that_no_archive_may_have_are_refused_before_it_is_written(
    tmp_path: Path, name: str, fault: str
) -> None:
    path = tmp_path / "pets" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"pixels")
    with pytest.raises(PipelineError, match=f"{fault}.*; rename it"):
        measure_folder(tmp_path / "pets")
