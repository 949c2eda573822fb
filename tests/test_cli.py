"""The command line: help, parameters, errors, the lock, and progress where there is no terminal."""

import fcntl
import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from pipeline.params.fit import FitParams
from stages import progress
from stages.cli import STAGES, main
from stages.common import LOCKS, ParamsFile, readable_errors, stage_command
from tests.imports import ROOT


def invoke(*words):
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize("stage", STAGES)
def test_the_list_shows_the_help_of_the_command_itself(stage):
    listed = main.get_command(click.Context(main), stage)
    command = importlib.import_module(f"stages.{stage}").main
    assert listed.get_short_help_str(1000) == command.get_short_help_str(1000) != ""


@pytest.mark.parametrize("stage", STAGES)
def test_help_shows_paths_defaults_and_the_common_options(stage):
    found = invoke(stage, "--help")
    assert found.exit_code == 0
    for option in ("--params", "--set", "--debug", "--version"):
        assert option in found.output
    assert "[default: params.yaml]" in found.output
    command = importlib.import_module(f"stages.{stage}").main
    for option in command.params:
        if isinstance(option.type, click.Path) and isinstance(option.default, str):
            assert str(option.default) in found.output.replace("\n", " ")


def test_the_group_lists_every_stage():
    output = invoke("--help").output
    assert all(f"  {stage} " in output for stage in STAGES)
    assert invoke("--version").output.startswith("adaptive-vit, version ")
    assert invoke("nonsense").exit_code == 2


@pytest.mark.parametrize(
    ("words", "expected"), [("adaptive-vit pro", "plain,probe"), ("adaptive-vit --h", "plain,--help")]
)
def test_neither_the_list_nor_completion_imports_torch(words, expected):
    code = "import sys, stages.cli; sys.argv = ['adaptive-vit', '--help']\ntry: stages.cli.main()\n"
    code += "finally: assert 'torch' not in sys.modules"
    asked = {"_ADAPTIVE_VIT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
    for settings in ({}, asked):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
    assert expected in ended.stdout.splitlines()


def test_the_options_of_a_stage_are_completed():
    completed = ShellComplete(main, {}, "adaptive-vit", "").get_completions(["delta"], "--del")
    assert [item.value for item in completed] == ["--deltas"]


def test_a_missing_input_is_one_sentence_without_a_traceback(project):
    found = invoke("delta")
    assert found.exit_code == 1
    assert found.stderr.startswith("Error: data/embeddings/low: holds no part-*.parquet; run extract")
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError("no memory for passes"),
    ],
)
def test_too_little_memory_is_no_defect(capsys, error):
    with pytest.raises(SystemExit), readable_errors(debug=False):
        raise error
    assert capsys.readouterr().err == f"Error: {error}; use a smaller runtime.batch_size\n"


def test_debug_shows_where(project):
    assert isinstance(invoke("delta", "--debug").exception, Exception)
    assert not isinstance(invoke("delta", "--debug").exception, SystemExit)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("threshold.vlaue=0.3", "fit.threshold.vlaue: unknown key; did you mean 'value'?"),
        ("fit.threshold.value=2", "rule escalation_rate needs a value from 0 to 1, not 2"),
        ("treshold.value=0.3", "unknown section 'treshold'; did you mean 'threshold'?"),
        (
            "resolution.low=64",
            "--set resolution.low=64: unknown section 'resolution'; did you mean 'resolutions'?",
        ),
        ("threshold.value", "expected KEY=VALUE"),
        ("threshold.value=[", "--set threshold.value=[: not valid YAML"),
        ("bootstrap.deep=1", "'bootstrap' is a value, not a section"),
    ],
)
def test_set_is_validated_like_the_file(project, override, message):
    found = invoke("fit", "--set", override)
    assert found.exit_code == 1
    assert message in found.stderr


@pytest.mark.parametrize("text", ["5e-05", "1e-05", "2E-4", "1.5e-3"])
def test_a_small_number_is_read_as_dvc_writes_it(project, text):
    document = (project / "params.yaml").read_text().replace("value: 0.095", f"value: {text}")
    (project / "params.yaml").write_text(document)
    for params in (ParamsFile(Path("params.yaml"), (), "fit"), written_by_set(text)):
        assert params.section("fit", FitParams).threshold.value == float(text)


def test_what_was_set_and_is_not_read_is_said(project):
    @stage_command("fit")
    def command(params):
        params.section("fit", FitParams)

    found = CliRunner().invoke(command, ["--set=sead=1", "--set=replay.images=7", "--set=seed=3"])
    assert found.exit_code == 1
    assert "fit.sead" in found.output
    found = CliRunner().invoke(command, ["--set=data.sead=1", "--set=replay.images=7", "--set=seed=3"])
    assert found.exit_code == 0
    for key in ("data.sead", "replay.images"):
        assert f"Warning: --set {key}: test_cli does not read it; it changed nothing" in found.stderr
    assert "fit.seed" not in found.output


def written_by_set(text):
    return ParamsFile(ROOT / "params.yaml", (f"threshold.value={text}",), "fit")


def test_predictions_that_go_to_different_files_are_made_side_by_side(project):
    invoke("predict", "none.jpg", "--out", "a.csv")
    (lock,) = LOCKS.glob("predict-*.lock")
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "running already" in invoke("predict", "none.jpg", "--out", "./a.csv").stderr
        assert "running already" not in invoke("predict", "none.jpg", "--out", "b.csv").stderr


@pytest.mark.parametrize(
    ("text", "source"),
    [("photos #2", "photos #2"), ("#2", "#2"), (" a ", "a"), ("'photos #2'", "photos #2"), ('"3"', "3")],
)
def test_a_text_of_the_command_line_is_taken_as_it_is_unless_quoted(text, source):
    params = ParamsFile(ROOT / "params.yaml", (f"data.source={text}",), "data")
    assert params.document["data"]["source"] == source


def test_an_unknown_section_in_the_file_is_named(project):
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "\nrunntime: {}\n")
    assert "unknown section 'runntime'; did you mean 'runtime'?" in invoke("fit").stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"data: 2024-13-45", "not valid YAML: month must be in 1..12"),
        (b"- 1", "expected sections of key"),
        (b"data: \xff", "not UTF-8 text (from byte 6 on); save it as UTF-8"),
        (b"1: {}", "unknown section 1; expected one of data"),
    ],
)
def test_a_file_that_holds_no_parameters_is_named(project, text, message):
    (project / "other.yaml").write_bytes(text)
    assert f"Error: other.yaml: {message}" in invoke("fit", "--params", "other.yaml").stderr
    assert "gone.yaml: not found" in invoke("fit", "--params", "gone.yaml").stderr


def test_a_stage_that_runs_already_is_not_run_twice(project):
    LOCKS.mkdir(parents=True)
    with (LOCKS / "delta.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("12345")
        held.flush()
        found = invoke("delta")
        as_dvc_does = subprocess.run(
            [sys.executable, "-m", "stages.delta"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    assert found.exit_code == as_dvc_does.returncode == 1
    assert "running already (process 12345)" in found.stderr
    assert "running already (process 12345)" in as_dvc_does.stderr


def test_progress_without_a_terminal_is_plain_lines_at_intervals(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 11.0, 12.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress("read", 40, "images") as advance:
        for _ in range(4):
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["read: 20 of 40 images, 2 images/s", "read: 40 of 40 images, 2 images/s"]
