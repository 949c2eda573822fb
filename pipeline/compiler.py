"""The machine's C++ compiler, which makes the engines that are compiled where they run."""

import shutil
import subprocess
from functools import cache

# The C++ uses what GCC alone has.
_NAME = "g++"
NEEDED = "needs a C++ compiler; install g++ 11 or newer (Debian: apt-get install g++)"


def find_compiler() -> str | None:
    """Its name; None where there is none that runs."""
    return _NAME if shutil.which(_NAME) and read_version(_NAME) else None


@cache
def read_version(compiler: str) -> str:
    """What it says of itself; empty where it cannot run, such as a name that stands for none."""
    try:
        done = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
