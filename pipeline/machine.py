"""Facts of the machine and its installation that measured times depend on. Cheap: imports no torch."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pipeline.compiler import find_compiler

CODE = ("pipeline", "stages", "requirements.lock")
PACKAGES = ("numpy", "openvino", "pyarrow", "timm", "torch", "torchvision")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, GPUs, system and versions; the same on every call on one machine."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpus(),
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))} | _compiler(),
    }


def current_commit(folder: Path) -> str:
    """The commit that is checked out, with `-dirty` where its code differs; `unknown` outside git.

    Only the code counts: that parameters and results change is what an experiment does.
    """
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _version(package: str) -> str | None:
    """None where the package, such as that of a backend, is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler() -> dict[str, str]:
    """By name; empty where there is none. It makes the engines that are compiled on the machine."""
    name = find_compiler()
    return {name: _output(name, "-dumpversion")} if name else {}


def _git(folder: Path, *words: str) -> str:
    return _output("git", "-C", str(folder), *words)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    """The model's name: from /proc/cpuinfo on Linux, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> str:
    """Names of the NVIDIA GPUs, as their driver tells them; empty where there are none."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return "; ".join(found.stdout.strip().splitlines()) if found.returncode == 0 else ""
