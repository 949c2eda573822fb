import subprocess

import pytest

from pipeline import machine
from pipeline.errors import PipelineError
from pipeline.files import write_json
from pipeline.machine import current_commit, describe_machine, read_machine


def test_the_description_is_the_same_on_every_call():
    found = describe_machine()
    assert found == describe_machine()
    assert found.keys() == {"processor", "instructions", "cores", "gpu", "os", "python", "versions"}
    assert found["cores"] >= 1
    assert found["processor"]
    assert "torch" in found["versions"]


def test_processors_of_one_name_are_told_apart_by_what_they_multiply_with(monkeypatch):
    monkeypatch.setattr(machine, "processor_model", lambda: "Intel(R) Xeon(R) Processor")
    told = []
    for flags in ({"fpu", "fma", "avx512f", "avx2"}, {"fma", "avx512f", "avx2", "amx_tile", "pni"}, set()):
        monkeypatch.setattr(machine, "processor_flags", lambda flags=flags: flags)
        told.append(describe_machine()["instructions"])
    assert told == ["avx2 avx512f fma", "amx_tile avx2 avx512f fma", ""]


def test_the_description_of_this_machine_is_taken(tmp_path):
    here = describe_machine()
    write_json(tmp_path / "machine.json", here)
    assert read_machine(tmp_path / "machine.json") == here


def test_the_description_of_another_machine_or_installation_is_refused(tmp_path):
    here, path = describe_machine(), tmp_path / "machine.json"
    differing = f"cores 99, here {here['cores']}; torch 0.1, here {here['versions']['torch']}"
    write_json(path, here | {"cores": 99, "versions": here["versions"] | {"torch": "0.1"}})
    with pytest.raises(PipelineError) as found:
        read_machine(path)
    assert str(found.value) == (
        f"{path}: describes another machine or installation ({differing}); run adaptive-vit probe"
    )


def test_a_description_that_does_not_tell_the_instructions_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "processor_flags", lambda: {"avx2"})
    here = describe_machine()
    write_json(tmp_path / "machine.json", {key: here[key] for key in here if key != "instructions"})
    with pytest.raises(PipelineError, match="instructions unknown, here avx2"):
        read_machine(tmp_path / "machine.json")


def test_the_commit_says_when_the_code_differs_from_it(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e@localhost"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    assert current_commit(tmp_path) == "unknown"
    git("init", "-q")
    (tmp_path / "pipeline").mkdir()
    code, parameters = tmp_path / "pipeline/code.py", tmp_path / "params.yaml"
    code.write_text("one")
    parameters.write_text("one")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = current_commit(tmp_path)
    assert len(commit) == 12
    parameters.write_text("two")
    assert current_commit(tmp_path) == commit
    code.write_text("two")
    assert current_commit(tmp_path) == f"{commit}-dirty"
    assert current_commit(tmp_path, ["params.yaml"]) == f"{commit}-dirty"
    assert current_commit(tmp_path, ["stages"]) == commit
