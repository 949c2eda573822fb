"""The pass as a shared library: compiled for a unit at its first use, kept for the processes to come."""

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock

from pipeline.architecture import Architecture
from pipeline.compiler import NEEDED, find_compiler, read_version
from pipeline.engines.native.pack import Model, Outputs, why_unfit
from pipeline.engines.native.units import UNITS, Unit
from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.params.runtime import Precision
from pipeline.processor import processor_flags

SOURCES = Path(__file__).parent / "src"
CACHE = Path("~/.cache/adaptive-vit")
_FLAGS = ("-std=c++20", "-O3", "-pthread", "-shared", "-fPIC")
_CLOCK = "-DVIT_CLOCK"
# Teams by process, since a forked one has no threads of its parent's, and by how many threads they are.
_TEAMS: dict[tuple[int, int], int] = {}
_MAKING_TEAMS = Lock()


def why_not_native(backend: str, precision: Precision, shape: Architecture | None = None) -> str | None:
    """What this machine lacks for it, or why it does not take a network; None where its library works."""
    unit = find_unit(backend, precision)
    if unit is None:
        known = {name for unit in UNITS.values() if unit.backend == backend for name in unit.layouts}
        return f"it does not compute in it; use runtime.precision: {' or '.join(sorted(known))}"
    missing = _why_no_library(unit.name)
    if missing or shape is None:
        return missing
    return why_unfit(shape, unit.layouts[precision])


def find_unit(backend: str, precision: Precision) -> Unit | None:
    """The first that the processor has, else the last; None where the backend has none for the precision."""
    units = [unit for unit in UNITS.values() if unit.backend == backend and precision in unit.layouts]
    there = processor_flags()
    runnable = (unit for unit in units if there.issuperset(unit.instructions))
    return next(runnable, units[-1] if units else None)


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
    except PipelineError as error:
        return str(error)
    except (OSError, RuntimeError) as error:  # Such as no home, or a disk that is full.
        return f"{error}; it is compiled into {CACHE}: free that for writing, or set HOME to a folder that is"
    return None


@cache
def load_library(name: str, clocked: bool = False) -> ctypes.CDLL:
    """Compiled first where need be; raises PipelineError where it cannot be, or Linux gives no tiles.

    clocked: with a clock of its parts (`src/clock.h`), which costs time itself.
    """
    library = ctypes.CDLL(str(_compile_pass(UNITS[name], clocked)))
    library.vit_create_team.restype = library.vit_create.restype = ctypes.c_void_p
    library.vit_create_team.argtypes = [ctypes.c_int]
    library.vit_create.argtypes = [ctypes.POINTER(Model), ctypes.c_void_p, ctypes.c_int]
    library.vit_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Outputs)]
    library.vit_run.restype = library.vit_destroy.restype = None
    library.vit_destroy.argtypes = [ctypes.c_void_p]
    if library.vit_prepare() != 0:
        raise PipelineError("Linux gives this process no AMX tiles; use runtime.backend: openvino")
    return library


def team_of(library: ctypes.CDLL, threads: int) -> int:
    """The handle of threads that stay as long as the process: one team for all engines of that many.

    The library that asks first makes it, and all share it: the idle threads of a second team would look for
    work on the cores of the first.
    """
    with _MAKING_TEAMS:
        key = os.getpid(), threads
        if key not in _TEAMS:
            handle: int | None = library.vit_create_team(threads)
            if handle is None:
                raise PipelineError(f"runtime.threads: the system gives no {threads} threads; use fewer")
            _TEAMS[key] = handle
        return _TEAMS[key]


@cache
def load_score(name: str, source: str) -> int | None:
    """The address of what `write_formula` wrote, compiled for a unit."""
    score = ctypes.CDLL(str(_compile("the score", source, (*_FLAGS, *UNITS[name].flags)))).score
    return ctypes.cast(score, ctypes.c_void_p).value


def _compile_pass(unit: Unit, clocked: bool = False) -> Path:
    flags = *_FLAGS, *unit.flags, *([_CLOCK] if clocked else [])
    folders = SOURCES, *(SOURCES / folder for folder in unit.folders)
    return _compile(f"the pass for {unit.name}", '#include "engine.cpp"', flags, folders)


def _compile(what: str, source: str, flags: Sequence[str], folders: Sequence[Path] = ()) -> Path:
    """The library of a source and what it includes from the folders, from the cache where it is there."""
    compiler = find_compiler() or "g++"
    digest = hashlib.sha256(repr((compiler, read_version(compiler), flags, source)).encode())
    for included in sorted(path for folder in folders for path in folder.glob("*") if path.is_file()):
        digest.update(included.read_bytes())
    path = CACHE.expanduser() / f"{what.split()[-1]}-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        with whole_file(path) as temporary:
            options = *flags, *(f"-I{folder}" for folder in folders)
            # In English, in which `_first_error` looks for it.
            command = ["env", "LC_ALL=C", compiler, *options, "-x", "c++", "-", "-o", str(temporary)]
            done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise PipelineError(f"{compiler} cannot compile {what}: {_first_error(done.stderr)}")
    return path


def _first_error(output: str) -> str:
    """The compiler's own words on what it stopped at."""
    lines = output.splitlines() or ["no reason given"]
    return next((line for line in lines if "error" in line), lines[-1])
