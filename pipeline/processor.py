"""What Linux tells of the processor. Cheap: imports no torch."""

from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def processor_flags() -> set[str]:
    """The instructions that Linux names; empty where the system does not tell them as Linux does."""
    return set(_read_cpu_info("flags").split())


def processor_vendor() -> str:
    """As Linux names it, such as AuthenticAMD; empty where the system does not."""
    return _read_cpu_info("vendor_id")


def processor_model() -> str:
    """Its name, which unlike processors may share; empty where the system does not tell it as Linux does."""
    return _read_cpu_info("model name")


def _read_cpu_info(name: str) -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(name)), "").partition(":")[2].strip()
