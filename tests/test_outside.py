from pathlib import Path

import pytest

from pipeline.outside import find_outside


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A folder of a queued experiment inside a project that has a file which git ignores."""
    folder = tmp_path / ".dvc/tmp/exps/tmpabc"
    folder.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.zip").write_bytes(b"project")
    monkeypatch.chdir(folder)
    return folder


def test_a_queued_experiment_finds_what_the_project_has(experiment, tmp_path):
    assert find_outside("data/mine.zip") == tmp_path / "data/mine.zip"


def test_its_own_file_comes_first(experiment):
    (experiment / "data").mkdir()
    (experiment / "data/mine.zip").write_bytes(b"experiment")
    assert find_outside("data/mine.zip").read_bytes() == b"experiment"


def test_elsewhere_a_path_is_what_it_says(tmp_path, monkeypatch):
    (tmp_path / "mine.zip").write_bytes(b"")
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    assert find_outside("mine.zip") == Path("mine.zip")
    assert find_outside(str(tmp_path / "mine.zip")) == tmp_path / "mine.zip"


def test_the_home_folder_has_its_short_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_outside("~/mine.zip") == tmp_path / "mine.zip"
