"""Facts of the machine and its installation that measured times depend on. Cheap: imports no torch."""

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.compiler import find_compiler, read_version
from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.processor import count_cores, processor_flags, processor_model

CODE = ("pipeline", "stages", "requirements.lock")
PACKAGES = ("numpy", "openvino", "pillow", "pyarrow", "simplejpeg", "timm", "torch", "torchvision")
# What engines multiply with, as Linux names it: processors that a cloud gives one name differ in it.
INSTRUCTIONS = frozenset(
    ("amx_bf16", "amx_int8", "amx_tile", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "fma")
)


def describe_machine() -> dict[str, Any]:
    """Processor, cores, GPUs, system and versions; the same on every call on one machine.

    instructions: those of INSTRUCTIONS that the processor has; empty where the system does not tell.
    """
    return {
        "processor": processor_model() or platform.processor() or platform.machine(),
        "instructions": " ".join(sorted(INSTRUCTIONS & processor_flags())),
        "cores": count_cores(),
        "gpu": _gpus(),
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))} | _compiler(),
    }


def read_machine(path: Path) -> dict[str, Any]:
    """The description in data/probe/machine.json; raises PipelineError where it is not this machine's."""
    found, running = read_json(path), describe_machine()
    theirs, ours = _flat(found), _flat(running)
    differing = [
        f"{key} {_say(theirs, key)}, here {_say(ours, key)}"
        for key in {**theirs, **ours}
        if theirs.get(key) != ours.get(key)
    ]
    if differing:
        raise PipelineError(
            f"{path}: describes another machine or installation ({'; '.join(differing)}); "
            "run adaptive-vit probe"
        )
    return found


def name_processor(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Of a description, what tells processors apart."""
    return {key: machine[key] for key in ("processor", "instructions")}


def current_commit(folder: Path, code: Sequence[str] = CODE) -> str:
    """The commit that is checked out, with `-dirty` where its code differs; `unknown` outside git.

    code: paths in `folder`, as git takes them.
    Only the code counts: that parameters and results change is what an experiment does.
    """
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", *code)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _flat(machine: Mapping[str, Any]) -> dict[str, Any]:
    """With the versions beside the other facts."""
    facts = {key: value for key, value in machine.items() if key != "versions"}
    return {**facts, **machine.get("versions", {})}


def _say(facts: Mapping[str, Any], key: str) -> str:
    return str(facts.get(key, "unknown") or "none")


def _version(package: str) -> str | None:
    """None where the package, such as that of a backend, is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler() -> dict[str, str]:
    """By name; empty where there is none. It makes the engines that are compiled on the machine."""
    name = find_compiler()
    return {name: read_version(name)} if name else {}


def _git(folder: Path, *words: str) -> str:
    return _output("git", "-C", str(folder), *words)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _gpus() -> str:
    """Names of the NVIDIA GPUs, as their driver tells them; empty where there are none."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return "; ".join(found.stdout.strip().splitlines()) if found.returncode == 0 else ""
