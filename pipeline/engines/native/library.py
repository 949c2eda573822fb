"""The pass as a shared library: compiled for a unit at its first use, kept for the processes to come."""

import ctypes
import hashlib
import subprocess
from functools import cache
from pathlib import Path

from pipeline.compiler import NEEDED, find_compiler
from pipeline.engines.native.pack import Model, Outputs
from pipeline.engines.native.units import UNITS, Unit
from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.params.runtime import Precision

SOURCES = Path(__file__).parent / "src"
CACHE = Path("~/.cache/adaptive-vit")
_FLAGS = ("-std=c++20", "-O3", "-pthread", "-shared", "-fPIC")
_CPU_INFO = Path("/proc/cpuinfo")


def why_not_native(name: str, precision: Precision) -> str | None:
    """What this machine lacks for a unit, and what to do; None where its library works."""
    if precision not in UNITS[name].layouts:
        return "it computes in float32 alone; use runtime.precision: float32"
    return _why_no_library(name)


@cache
def _why_no_library(name: str) -> str | None:
    there = processor_flags()
    missing = [instruction for instruction in UNITS[name].instructions if instruction not in there]
    if missing:
        return f"the processor has no {', '.join(missing)}; use runtime.backend: auto"
    if find_compiler() is None:
        return f"it {NEEDED}"
    try:
        load_library(name)
    except (PipelineError, OSError, RuntimeError) as error:  # Such as no home, or a cache that is full.
        return str(error)
    return None


@cache
def load_library(name: str) -> ctypes.CDLL:
    """Compiled first where need be; raises PipelineError where it cannot be, or Linux gives no tiles."""
    library = ctypes.CDLL(str(_compile(UNITS[name])))
    library.vit_create_team.restype = library.vit_create.restype = ctypes.c_void_p
    library.vit_create_team.argtypes = [ctypes.c_int]
    library.vit_create.argtypes = [ctypes.POINTER(Model), ctypes.c_void_p, ctypes.c_int]
    library.vit_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Outputs)]
    library.vit_run.restype = library.vit_destroy.restype = None
    library.vit_destroy.argtypes = [ctypes.c_void_p]
    if library.vit_prepare() != 0:
        raise PipelineError("Linux gives this process no AMX tiles; use runtime.backend: openvino")
    return library


@cache
def team_of(name: str, threads: int) -> int:
    """The handle of threads that stay as long as the process: one team for all engines of that many."""
    handle: int = load_library(name).vit_create_team(threads)
    return handle


def _compile(unit: Unit) -> Path:
    """The library of these sources, from the cache where it is there."""
    compiler = find_compiler() or "g++"
    flags = [*_FLAGS, *unit.flags, f"-I{SOURCES}", f"-I{SOURCES / unit.name}"]
    digest = hashlib.sha256(repr((compiler, _FLAGS, unit.flags)).encode())
    for source in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        digest.update(source.read_bytes())
    path = CACHE.expanduser() / f"{unit.name}-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        with whole_file(path) as temporary:
            command = [compiler, *flags, str(SOURCES / "engine.cpp"), "-o", str(temporary)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise PipelineError(
                    f"{compiler} cannot compile the pass for {unit.name}: {_first_error(done.stderr)}"
                )
    return path


def _first_error(output: str) -> str:
    """The compiler's own words on what it stopped at."""
    lines = output.splitlines() or ["no reason given"]
    return next((line for line in lines if "error" in line), lines[-1])


def processor_flags() -> set[str]:
    """The instructions that Linux names; empty where the system does not tell them as Linux does."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
