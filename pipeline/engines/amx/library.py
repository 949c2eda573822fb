"""The AMX pass as a shared library: compiled where it is first needed, kept for the processes to come."""

import ctypes
import hashlib
import subprocess
from functools import cache, lru_cache
from pathlib import Path

from pipeline.compiler import NEEDED, find_compiler
from pipeline.engines.amx.pack import Model, Outputs
from pipeline.errors import PipelineError
from pipeline.files import whole_file

SOURCES = Path(__file__).parent / "src"
CACHE = Path("~/.cache/adaptive-vit")
_FLAGS = ("-std=c++20", "-O3", "-march=sapphirerapids", "-pthread", "-shared", "-fPIC")
_CPU_INFO = Path("/proc/cpuinfo")
_INSTRUCTIONS = ("amx_tile", "amx_bf16", "avx512_bf16")


@lru_cache(maxsize=1)
def why_not_amx() -> str | None:
    """What this machine lacks, and what to do; None where the library works."""
    missing = [name for name in _INSTRUCTIONS if name not in _processor_flags()]
    if missing:
        return f"the processor has no {', '.join(missing)}; use runtime.backend: auto"
    if find_compiler() is None:
        return f"it {NEEDED}"
    try:
        load_library()
    except (PipelineError, OSError, RuntimeError) as error:  # Such as no home, or a cache that is full.
        return str(error)
    return None


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL:
    """Compiled first where need be; raises PipelineError where it cannot be, or Linux gives no tiles."""
    library = ctypes.CDLL(str(_compile()))
    library.vit_create_team.restype = library.vit_create.restype = ctypes.c_void_p
    library.vit_create_team.argtypes = [ctypes.c_int]
    library.vit_create.argtypes = [ctypes.POINTER(Model), ctypes.c_void_p, ctypes.c_int]
    library.vit_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Outputs)]
    library.vit_run.restype = library.vit_destroy.restype = None
    library.vit_destroy.argtypes = [ctypes.c_void_p]
    if library.vit_request_tiles() != 0:
        raise PipelineError("Linux gives this process no AMX tiles; use runtime.backend: openvino")
    return library


@cache
def team_of(threads: int) -> int:
    """The handle of threads that stay as long as the process: one team for all engines of that many."""
    handle: int = load_library().vit_create_team(threads)
    return handle


def _compile() -> Path:
    """The library of these sources, from the cache where it is there."""
    compiler = find_compiler() or "g++"
    digest = hashlib.sha256(repr((compiler, _FLAGS)).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    path = CACHE.expanduser() / f"amx-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        with whole_file(path) as temporary:
            command = [compiler, *_FLAGS, str(SOURCES / "engine.cpp"), "-o", str(temporary)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise PipelineError(f"{compiler} cannot compile the AMX pass: {_first_error(done.stderr)}")
    return path


def _first_error(output: str) -> str:
    """The compiler's own words on what it stopped at."""
    lines = output.splitlines() or ["no reason given"]
    return next((line for line in lines if "error" in line), lines[-1])


def _processor_flags() -> set[str]:
    """Empty where the system does not tell them as Linux does."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
