"""The walls between the modules, and dvc.yaml's dependencies against the import statements."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from pipeline.params.base import SECTION_NAMES
from stages.cli import STAGES
from tests.imports import ROOT, import_closure, imported_modules, outside_imports

LIBRARY = sorted((ROOT / "pipeline").rglob("*.py"))
DVC_STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# Files of the user's that the parameters name, as probe notes them; no option of the command leads there.
NOTED = {
    "download": {"data/probe/source.json"},
    "extract": {"data/probe/weights.json"},
    "replay": {"data/probe/weights.json"},
    "profile": {"data/probe/weights.json"},
}
# In the folder of metrics that report is given, but not on its page; proxies.csv repeats proxies.json.
NOT_SHOWN = {"metrics/train.json", "metrics/plots/training.csv", "metrics/plots/proxies.csv"}
# Where a stage needs some keys of a section, the others do not run it again.
KEYS = {
    "download": {"data.source", "data.sha256"},
    "train": {"model.name"},
    "extract": {"resolutions.low", "resolutions.high"},
    "proxies": {"fit.proxy", "fit.bootstrap", "fit.seed", "fit.threshold.confidence"},
    "profile": {"replay.stable_within"},
}

# What a called program wrote is not what the library writes.
PROCESS_OUTPUT = {"compiler.py": {"stdout"}, "machine.py": {"stdout"}, "library.py": {"stderr"}}


def names(paths):
    return {str(path.relative_to(ROOT)) for path in paths}


def entry_of(stage):
    return DVC_STAGES[stage].get("do", DVC_STAGES[stage])


def outs_of(stage):
    """Of all items where the stage runs once for each."""
    written = [*entry_of(stage).get("outs", []), *entry_of(stage).get("metrics", [])]
    paths = [next(iter(item)) if isinstance(item, dict) else item for item in written]
    items = DVC_STAGES[stage].get("foreach", [""])
    return {path.replace("${item}", item) for path in paths for item in items}


def defaults_of(stage):
    command = importlib.import_module(f"stages.{stage}").main
    return {option.default for option in command.params if isinstance(option.type, click.Path)}


def within(paths, folder):
    return {path for path in paths if Path(path).is_relative_to(folder)}


def sections_of(stage):
    """Those that the stage's source, or what it runs models with, asks for by name; all where in a loop."""
    paths = [ROOT / f"stages/{stage}.py"]
    if ROOT / "stages/running.py" in import_closure(paths[0]):
        paths.append(ROOT / "stages/running.py")
    trees = [ast.parse(path.read_text()) for path in paths]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    asked = [call.args[0] for call in calls if getattr(call.func, "attr", None) == "section"]
    in_a_loop = any(isinstance(name, ast.Name) for name in asked)
    return {*SECTION_NAMES} if in_a_loop else {name.value for name in asked}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_no_command_line_and_touches_no_outside(path):
    modules = {module.partition(".")[0] for module in imported_modules(path)}
    assert not modules & {"stages", "click", "dvc", "yaml", "tqdm"}
    words = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    words |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not words & {"print", "environ", "getenv", "stdout", "stderr"} - PROCESS_OUTPUT.get(
        path.name, set()
    )


@pytest.mark.parametrize(
    "module",
    [
        "vit",
        "checkpoint",
        "fused",
        "engines/build",
        "extract",
        "proxies",
        "policy",
        "timing",
        "cascade",
        "replay",
        "profile",
    ],
)
def test_what_runs_beside_the_accelerator_imports_no_polars(module):
    assert "polars" not in outside_imports(import_closure(ROOT / f"pipeline/{module}.py"))


@pytest.mark.parametrize(
    "stage", ["delta", "fit", "proxies", "report", "results", "probe", "recommend", "study", "drift"]
)
def test_what_works_on_tables_imports_no_torch(stage):
    assert not outside_imports(import_closure(ROOT / f"stages/{stage}.py")) & {"torch", "torchvision", "timm"}


def test_what_the_source_says_is_what_python_does():
    code = "import stages.fit, stages.report, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_no_other(stage):
    reached = names(import_closure(ROOT / f"stages/{stage}.py"))
    shared = {
        "stages/__init__.py",
        "stages/common.py",
        "stages/printing.py",
        "stages/progress.py",
        "stages/running.py",
        f"stages/{stage}.py",
    }
    assert {name for name in reached if name.startswith("stages/")} <= shared


@pytest.mark.parametrize("stage", DVC_STAGES)
def test_dvc_yaml_lists_exactly_the_files_that_the_stage_reaches(stage):
    entry = entry_of(stage)
    code = {dep for dep in entry["deps"] if dep.endswith((".py", ".j2"))}
    expected = names(import_closure(ROOT / f"stages/{stage}.py"))
    templates = {name for name in code if name.endswith(".j2")}
    assert templates == ({"pipeline/report.html.j2"} if stage == "report" else set())
    missing, surplus = expected - code, code - expected - templates
    assert not missing, f"add to the deps of {stage} in dvc.yaml: {sorted(missing)}"
    assert not surplus, f"remove from the deps of {stage} in dvc.yaml: {sorted(surplus)}"
    assert ("pipeline/engines/native/src" in entry["deps"]) == (
        "pipeline/engines/native/library.py" in expected
    )


@pytest.mark.parametrize("stage", DVC_STAGES)
def test_paths_in_dvc_yaml_are_the_defaults_of_the_command(stage):
    """What DVC watches and what the command writes by default are the same files."""
    for out in outs_of(stage):
        assert {out, str(Path(out).parent)} & defaults_of(stage)


@pytest.mark.parametrize("stage", DVC_STAGES)
def test_dvc_yaml_lists_exactly_the_data_that_the_command_reads_by_default(stage):
    """A folder that the stage only reads stands for all that the other stages write into it."""
    deps = {dep for dep in entry_of(stage)["deps"] if not dep.endswith((".py", ".j2", "/native/src"))}
    elsewhere = set().union(*(outs_of(other) for other in DVC_STAGES if other != stage))
    read = {path for path in defaults_of(stage) if not within(outs_of(stage), path)} - {"params.yaml"}
    expected = set().union(*(within(elsewhere, path) or {path} for path in read))
    assert deps == expected - NOT_SHOWN | NOTED.get(stage, set())


@pytest.mark.parametrize("stage", DVC_STAGES)
def test_dvc_yaml_lists_exactly_the_parameters_that_the_command_reads(stage):
    keys = KEYS.get(stage, set())
    in_part = {key.partition(".")[0] for key in keys}
    assert in_part <= sections_of(stage)
    assert set(entry_of(stage).get("params", [])) == sections_of(stage) - in_part | keys


def test_caches_of_python_do_not_count_as_changes():
    assert {"__pycache__/", "*.pyc"} <= set((ROOT / ".dvcignore").read_text().split())
