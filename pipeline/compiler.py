"""The machine's C++ compiler, which makes the engines that are compiled where they run."""

import shutil
import subprocess
from functools import cache

_NAMES = ("g++", "clang++")
NEEDED = "needs a C++ compiler; install g++ (Debian: apt-get install g++)"


def find_compiler() -> str | None:
    """Its name; None where there is none."""
    return next(filter(shutil.which, _NAMES), None)


@cache
def read_version(compiler: str) -> str:
    """What it says of itself."""
    command = [compiler, "-dumpversion"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
