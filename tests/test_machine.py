import subprocess

from pipeline.machine import current_commit, describe_machine


def test_the_description_is_the_same_on_every_call():
    found = describe_machine()
    assert found == describe_machine()
    assert found.keys() == {"processor", "cores", "gpu", "os", "python", "versions"}
    assert found["cores"] >= 1
    assert found["processor"]
    assert "torch" in found["versions"]


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
