"""The probe: what DVC cannot see by itself."""

import json

from click.testing import CliRunner

from stages.probe import main


def probe(*overrides):
    words = [word for override in overrides for word in ("--set", override)]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 0, found.output


def read(project, name):
    return json.loads((project / f"data/probe/{name}.json").read_text())


def test_names_stand_for_themselves(project):
    probe()
    assert read(project, "source") == {"name": "tiny-imagenet"}
    assert read(project, "weights") == {"name": "random"}
    assert read(project, "machine")["cores"] >= 1


def test_the_content_of_an_outside_file_is_what_counts(project):
    archive = project / "my images.zip"
    archive.write_bytes(b"one")
    probe("data.source=my images.zip")
    first = read(project, "source")
    (project / "copy.zip").write_bytes(b"one")
    probe("data.source=copy.zip")
    assert read(project, "source") == first
    archive.write_bytes(b"two")
    probe("data.source=my images.zip")
    assert read(project, "source") != first


def test_nothing_changes_where_nothing_changed(project):
    probe()
    before = {path.name: path.read_bytes() for path in (project / "data/probe").iterdir()}
    probe()
    assert {path.name: path.read_bytes() for path in (project / "data/probe").iterdir()} == before


def test_a_typo_in_any_section_is_found_before_all_else(project):
    found = CliRunner().invoke(main, ["--set", "report.galery_images=3"])
    assert found.exit_code == 1
    assert "report.galery_images: unknown key; did you mean 'gallery_images'?" in found.stderr
    assert not (project / "data/probe").exists()
