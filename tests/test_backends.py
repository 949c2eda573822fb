import json
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from pipeline import backends
from pipeline.backends import BACKENDS, choose_backend, why_not
from pipeline.engines.native import library
from pipeline.errors import PipelineError
from stages.engines import main
from tests.made import SHAPE

CPU = torch.device("cpu")
# Small images: what is told of them is the same.
SMALL = [
    f"--set={item}"
    for item in ("runtime.backend=eager", "resolutions.low=8", "resolutions.mid=16", "resolutions.high=24")
]


def test_auto_takes_the_first_that_is_there(monkeypatch):
    there = {"amx", "avx512", "avx2"}
    monkeypatch.setattr(library, "_why_no_library", lambda name: None if name in there else "missing")
    for fastest in ("amx", "avx512", "avx2"):
        assert choose_backend("auto", CPU, "float32", SHAPE) == fastest
        assert choose_backend("avx2", CPU, "float32", SHAPE) == "avx2"
        there.remove(fastest)
    assert choose_backend("auto", CPU, "float32", SHAPE) == "openvino"
    missing = {"openvino"}
    monkeypatch.setattr(
        backends.importlib.util, "find_spec", lambda name: None if name in missing else object()
    )
    monkeypatch.setattr(backends, "find_compiler", lambda: None)
    assert choose_backend("auto", CPU, "float32", SHAPE) == "eager"


def test_auto_goes_on_to_one_that_takes_the_networks_widths(monkeypatch):
    monkeypatch.setattr(library, "_why_no_library", lambda _name: None)
    assert choose_backend("auto", CPU, "float32", replace(SHAPE, width=48, heads=1)) == "avx512"
    odd = replace(SHAPE, width=144, heads=2)
    assert choose_backend("auto", CPU, "float32", odd) == "openvino"
    with pytest.raises(PipelineError, match="avx2 cannot run .* static_vit has 144 and 72: use openvino"):
        choose_backend("avx2", CPU, "float32", odd)


def test_where_none_can_run_auto_says_why_of_each(monkeypatch):
    monkeypatch.setattr(library, "_why_no_library", lambda _name: None)
    wide = replace(SHAPE, width=1280, heads=16)
    with pytest.raises(PipelineError, match="avx512 cannot run int8 .* at most.*; eager cannot run int8"):
        choose_backend("auto", CPU, "int8", wide)


@pytest.mark.parametrize(
    ("backend", "device", "message"),
    [
        ("cudagraph", "cpu", "runtime.backend: cudagraph cannot run float32 on cpu: it needs an NVIDIA GPU"),
        ("amx", "cuda", "amx cannot run float32 on cuda: it runs on the CPU; use runtime.device"),
        ("avx2", "cuda", "avx2 cannot run float32 on cuda: it runs on the CPU; use runtime.device"),
        ("openvino", "cuda", "openvino cannot run float32 on cuda: it runs on the CPU; use runtime.device"),
    ],
)
def test_a_backend_that_cannot_run_is_an_error_that_says_what_to_do(backend, device, message):
    with pytest.raises(PipelineError, match=message):
        choose_backend(backend, torch.device(device), "float32", SHAPE)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(backends, "find_compiler", lambda: None)
    assert "pip install openvino" in why_not("openvino", CPU, "float32")
    assert "install g++" in why_not("compile", CPU, "float32")
    assert "pip install triton" in why_not("compile", torch.device("cuda"), "float32")


def test_a_precision_that_the_processor_lacks_is_named(monkeypatch):
    from pipeline import quiet_openvino

    class Old:
        def get_property(self, _device, _name):
            return ["FP32"]

    monkeypatch.setattr(quiet_openvino.ov, "Core", Old)
    assert why_not("openvino", CPU, "float32") is None
    assert "use runtime.precision: float32" in why_not("openvino", CPU, "bfloat16")


def test_openvino_has_no_telemetry():
    from pipeline import quiet_openvino  # noqa: F401

    assert sys.modules["openvino_telemetry"] is None


def test_engines_lists_every_backend_and_measures_those_that_run(project):
    found = CliRunner().invoke(main, ["--runs", "30", "--skip", "compile", *SMALL])
    assert found.exit_code == 0
    header, *rows = found.output.splitlines()
    assert header.split()[:8] == ["engine", "precision", "low", "ms", "mid", "ms", "high", "ms"]
    assert [row.split()[:2] for row in rows[:2]] == [["eager", "float32"], ["eager", "bfloat16"]]
    listed = [row.split() for row in rows]
    assert {words[0] for words in listed if words[0] in BACKENDS} == set(BACKENDS) - {"compile"}
    for words in (words for words in listed if words[0] in BACKENDS and "available:" not in words):
        assert all(float(value) > 0 for value in words[2:5])
    low_ms, mid_ms, high_ms = map(float, rows[0].split()[2:5])
    assert min(low_ms, mid_ms, high_ms) > 0
    assert rows[0].endswith("<- runtime")
    if not torch.cuda.is_available():
        assert "not available: it needs an NVIDIA GPU" in found.output


def test_what_cannot_run_here_does_not_keep_the_list_from_being_shown(project):
    skipped = [word for name in BACKENDS if name != "eager" for word in ("--skip", name)]
    asked = ["--runs", "30", *skipped, *SMALL, "--set", "runtime.backend=cudagraph"]
    found = CliRunner().invoke(main, asked)
    assert found.exit_code == 0
    assert "What the parameters ask for cannot run here: runtime.backend: cudagraph" in found.stderr
    assert found.stdout.splitlines()[1].split()[:2] == ["eager", "float32"]
    assert "<- runtime" not in found.stdout
    told = json.loads(CliRunner().invoke(main, [*asked, "--json"]).stdout)
    assert told["runtime_lacks"].startswith("runtime.backend: cudagraph")


def test_programs_are_told_the_engines(project):
    skipped = [word for name in BACKENDS if name not in ("eager", "cudagraph") for word in ("--skip", name)]
    found = json.loads(CliRunner().invoke(main, ["--runs", "30", *skipped, "--json", *SMALL]).stdout)
    chosen, *others = found["engines"]
    assert (found["device"], chosen["backend"], chosen["precision"]) == ("cpu", "eager", "float32")
    assert chosen["roles"] == ["low", "mid", "high"]
    assert min(chosen["latency_ms"].values()) > 0
    assert chosen["latency_ms"].keys() == {"low", "mid", "high"}
    assert others[-1]["lacks"].startswith("it does not compute in 8 bits")
    assert all(("lacks" in entry) != ("latency_ms" in entry) for entry in found["engines"])
