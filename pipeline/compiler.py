"""The machine's C++ compiler, which makes the engines that are compiled where they run."""

import shutil

_NAMES = ("g++", "clang++")
NEEDED = "needs a C++ compiler; install g++ (Debian: apt-get install g++)"


def find_compiler() -> str | None:
    """Its name; None where there is none."""
    return next(filter(shutil.which, _NAMES), None)
