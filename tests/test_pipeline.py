"""Real DVC pipelines on the sample, in a temporary clone whose folder has a space in its name."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from stages.cli import main
from tests.imports import ROOT

SMALL = {
    "data": {"source": "sample", "calibration_images": 60, "evaluation_images": 60},
    "model": {"weights": "random"},  # So that other weights to ship change no expectation.
    "resolutions": {"low": 16, "mid": 24, "high": 32},
    "runtime": {"batch_size": 4},
    "extract": {"shard_images": 20},
    "replay": {"compare_images": 8, "single_stream_block": 5, "offline_block": 20, "warmup_windows": 3},
}
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    **{
        f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    },
}

pytestmark = pytest.mark.pipeline


def call(folder, *words):
    done = subprocess.run(
        words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def invoke(*words):
    """A command in this process, which has its libraries already; in the current folder."""
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def dvc(folder, *words):
    return call(folder, sys.executable, "-m", "dvc", *words)


def stages_run(output):
    return set(re.findall(r"Running stage '([^']+)'", output))


def commit(folder, message):
    call(folder, "git", "add", "-A")
    call(folder, "git", "commit", "-qm", message)


def write_params(folder, changes):
    document = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in changes.items():
        document[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The working tree as it is, committed in a clone, after one whole `dvc repro`; and what that said."""
    folder = tmp_path_factory.mktemp("pipeline") / "a clone"
    call(ROOT, "git", "clone", "-q", str(ROOT), str(folder))
    listed = call(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
        else:
            (folder / name).unlink(missing_ok=True)
    write_params(folder, SMALL)
    commit(folder, "small")
    output = dvc(folder, "repro")
    commit(folder, "reproduced")
    return folder, output


def metrics(folder, name):
    return json.loads((folder / "metrics" / f"{name}.json").read_text())


def test_one_repro_makes_everything(clone):
    folder, output = clone
    assert stages_run(output) == {
        *("probe", "download", "prepare", "extract@low", "extract@high"),
        *("delta", "fit", "proxies", "replay", "profile", "report"),
    }
    assert len(list((folder / "data/embeddings/low").iterdir())) == 6
    assert metrics(folder, "delta")["images"] == 120
    assert metrics(folder, "replay")["single_stream"]["images"] == 60
    page = (folder / "data/report.html").read_text()
    assert "adaptive" in page


def test_the_replay_repeats_the_decisions_of_fit(clone):
    folder, _ = clone
    fitted, replayed = metrics(folder, "fit")["evaluation"], metrics(folder, "replay")
    for scenario in ("single_stream", "offline"):
        assert replayed[scenario]["decision_agreement"] == 1.0
        assert replayed[scenario]["adaptive"]["escalation_rate"] == fitted["escalation_rate"]
        assert replayed[scenario]["adaptive"]["agreement"] == fitted["agreement"]


def test_a_replay_prices_every_threshold_and_answers_questions(clone, monkeypatch):
    folder, _ = clone
    with (folder / "metrics/plots/frontier.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(rows[at]["escalation_rate"]) for at in (0, -1)] == [0, 1]
    assert float(rows[-1]["agreement_proxy"]) == 1
    monkeypatch.chdir(folder)
    asked = invoke("recommend", "--max-accuracy-drop", "20")
    assert "certificate: with confidence 0.9, at most" in asked
    assert "set it: dvc exp run -S fit.proxy=cls_change -S fit.threshold.rule=" in asked
    best = invoke("recommend", "--max-accuracy-drop", "20", "--proxy", "any")
    assert f"set it: dvc exp run -S fit.proxy={best.split(',')[0]} -S fit.threshold.rule=" in best
    planned = json.loads(invoke("plan", "--count", "20", "--json"))
    for scenario in ("single_stream", "offline"):
        costs, rates = planned[scenario]["costs"], planned[scenario]["rates"]
        assert planned[scenario]["break_even_rate"] == max(0, 1 - costs["low_ms"] / costs["high_ms"])
        assert [rates[at]["reached"] for at in (0, -1)] == [0, 1]
        assert rates[0]["predicted"] == pytest.approx(costs["high_ms"] / costs["low_ms"])
    page = invoke("study")
    for title in ("Which signal", "What a certificate costs", "What a limit", "Against the static policy"):
        assert f"### {title}" in page
    same = invoke("drift", "--new", "data/embeddings/low")
    assert "no shift found" in same
    (folder / "metrics/drift.json").unlink()


def test_only_small_files_go_into_git(clone):
    folder, _ = clone
    tracked = call(folder, "git", "ls-files", "data", "metrics", "models").split()
    assert {"metrics/fit.json", "metrics/plots/deferral.csv", "models/policy.json"} <= set(tracked)
    assert not [name for name in tracked if name.startswith("data/") and not name.endswith(".gitignore")]


def test_a_second_repro_runs_only_the_probe_and_changes_nothing(clone):
    folder, _ = clone
    assert stages_run(dvc(folder, "repro")) == {"probe"}
    assert call(folder, "git", "status", "--porcelain") == ""


def test_another_threshold_runs_fit_replay_and_report_and_shows_in_the_diff(clone):
    folder, _ = clone
    ran = stages_run(dvc(folder, "exp", "run", "-S", "fit.threshold.value=0.4"))
    assert ran == {"probe", "fit", "replay", "report"}
    changes = json.loads(dvc(folder, "metrics", "diff", "--json"))
    rate = changes["metrics/fit.json"]["evaluation.escalation_rate"]
    assert rate["new"] > rate["old"] + 0.1
    replayed = changes["metrics/replay.json"]
    assert replayed["single_stream.adaptive.escalation_rate"]["diff"] > 0.1
    assert replayed["single_stream.adaptive.latency_ms.mean"]["diff"] != 0
    assert "metrics/delta.json" not in changes
    dvc(folder, "plots", "show", "-o", "plots")
    dvc(folder, "plots", "diff", "-o", "plots")
    assert "fit.threshold.value" in dvc(folder, "exp", "show", "--csv")


def test_a_misspelt_parameter_is_refused_before_anything_runs(clone):
    folder, _ = clone
    text = (folder / "params.yaml").read_text()
    try:
        write_params(folder, {"data": {"sede": 1, "source": "sample2"}})
        command = [sys.executable, "-m", "dvc", "repro"]
        done = subprocess.run(
            command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "data.sede: unknown key; did you mean 'seed'?" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
    finally:
        (folder / "params.yaml").write_text(text)


# Of a process that is to be killed while it writes its second shard.
WAITING = """
import sys, time
if sys.orig_argv[1:3] == ["-m", "stages.extract"]:
    import pipeline.writer
    write = pipeline.writer.write_groups
    def wait(path, *rest):
        if not path.match("part-00000.parquet"):
            time.sleep(600)
        write(path, *rest)
    pipeline.writer.write_groups = wait
"""


def test_a_killed_extraction_resumes_and_gives_the_same_bytes(clone, tmp_path):
    folder, _ = clone
    (tmp_path / "sitecustomize.py").write_text(WAITING)
    dvc(folder, "repro", "probe")
    embeddings = folder / "data/embeddings/high"
    before = {path.name: path.read_bytes() for path in embeddings.iterdir()}
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "extract@high"]
    running = subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}{os.pathsep}."},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline_s = time.monotonic() + 120
    while not list(folder.glob(".cache/extract/high-*/part-*.parquet")):
        assert running.poll() is None, "extract ended before it could be killed"
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not embeddings.exists()
    dvc(folder, *command[3:])
    resumed = metrics(folder, "extract/high")["resumed_images"]
    assert resumed == 20
    assert {path.name: path.read_bytes() for path in embeddings.iterdir()} == before
