"""The probe: what DVC cannot see by itself."""

import json

import pytest
import timm
from click.testing import CliRunner

from pipeline.architecture import ARCHITECTURES
from pipeline.checkpoint import load_weights
from pipeline.errors import PipelineError
from pipeline.params.model import ModelParams, ResolutionParams
from stages.probe import PATCH_PX, _check_model, main


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


def test_a_folder_is_known_by_its_files(project):
    (project / "photos/cats").mkdir(parents=True)
    (project / "photos/cats/1.jpg").write_bytes(b"one")
    probe("data.source=photos")
    first = read(project, "source")
    (project / "photos/cats/2.jpg").write_bytes(b"two")
    probe("data.source=photos")
    assert read(project, "source").keys() == first.keys() == {"files_sha256"}
    assert read(project, "source") != first


def test_a_list_of_classes_belongs_to_the_weights(project):
    (project / "classes.txt").write_text("cats\n")
    probe("model.classes=classes.txt")
    first = read(project, "weights")
    (project / "classes.txt").write_text("dogs\n")
    probe("model.classes=classes.txt")
    assert first["name"] == "random"
    assert read(project, "weights") != first


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "fit.proxy=cls_chnage",
            "fit.proxy: found 'cls_chnage'; no proxy has this name; did you mean 'cls_change'?",
        ),
        (
            "model.name=static_vit_locl",
            "neither this project nor timm has a model 'static_vit_locl'; did you mean static_vit_local?",
        ),
        (
            "resolutions.mid=50",
            "resolutions.mid: 50 px is no multiple of the model's patch size 4; use 48 or 52",
        ),
        ("model.classes=none.txt", "model.classes: none.txt is no file that can be read"),
    ],
)
def test_what_later_stages_would_refuse_is_found_before_them(project, override, message):
    found = CliRunner().invoke(main, ["--set", override])
    assert found.exit_code == 1
    assert message in found.stderr
    assert not (project / "data/probe").exists()


def test_a_source_that_dvc_would_delete_is_refused(project):
    archive = project / "data/raw/archive.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"the only copy")
    for name in ("data/raw/archive.zip", str(archive), "data/../data/raw/archive.zip"):
        found = CliRunner().invoke(main, ["--set", f"source={name}"])
        assert found.exit_code == 1
        assert "is where download puts its copy, and DVC deletes what is there" in found.stderr


def test_missing_weights_are_told_as_where_they_are_loaded(project):
    with pytest.raises(PipelineError) as caught:
        load_weights(ModelParams(name="static_vit", weights="none.safetensors", seed=0), 64)
    found = CliRunner().invoke(main, ["--set", "model.weights=none.safetensors"])
    assert (found.exit_code, found.stderr) == (1, f"Error: {caught.value}\n")


def test_patch_sizes_are_those_of_the_networks():
    assert {name: network.patch_px for name, network in ARCHITECTURES.items()} == PATCH_PX


def test_no_name_of_timms_is_taken_for_a_typo():
    sizes = ResolutionParams(low=32, mid=None, high=64)
    for name in [*timm.list_models(), *timm.list_pretrained(), *ARCHITECTURES]:
        _check_model(ModelParams(name=name, weights="random", seed=0), sizes)
