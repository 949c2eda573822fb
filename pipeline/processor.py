"""What Linux tells of the processor. Cheap: imports no torch."""

import math
import os
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")


def processor_flags() -> set[str]:
    """The instructions that Linux names; empty where the system does not tell them as Linux does."""
    return set(_read_cpu_info("flags").split())


def processor_vendor() -> str:
    """As Linux names it, such as AuthenticAMD; empty where the system does not."""
    return _read_cpu_info("vendor_id")


def processor_model() -> str:
    """Its name, with family and model, since generations may share a name: AMD EPYC, family 26 model 2.

    Empty where the system does not tell them as Linux does.
    """
    name, family, model = (_read_cpu_info(key) for key in ("model name", "cpu family", "model"))
    return f"{name}, family {family} model {model}" if family and model else name


def count_cores() -> int:
    """Those that this process may use: by its affinity, and by the share of time that its container has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _count_quota() or allowed)


def _count_quota() -> int | None:
    """Cores that a container has the time of, at least one; None where nothing limits it."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="utf-8").split()
        return None if quota == "max" else math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # Another system, or the first version of control groups.
        return None


def _read_cpu_info(name: str) -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == name), "")
