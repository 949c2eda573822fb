"""What tests leave out on a machine that lacks what they are of, and on no other."""

import importlib.util
from pathlib import Path

import pytest
import torch

from pipeline.backends import NATIVE, why_not
from pipeline.compiler import find_compiler
from pipeline.engines.native.library import find_unit
from pipeline.processor import processor_flags

CPU = torch.device("cpu")


def skip_unless(backend: str, precision: str = "float32") -> None:
    """Skip where the CPU cannot run it; where it can and does not, fail, and not skip."""
    reason = why_not(backend, CPU, precision)
    if reason is None:
        return
    assert _lacks(backend, precision, reason), f"{backend} {precision} is to run here: {reason}"
    pytest.skip(reason)


def _lacks(backend: str, precision: str, reason: str) -> bool:
    if backend not in NATIVE:
        return precision != "float32" or importlib.util.find_spec(backend) is None
    unit = find_unit(backend, precision)
    missing = unit is None or not processor_flags().issuperset(unit.instructions)
    return missing or find_compiler() is None or "gives this process no AMX tiles" in reason


def skip_without_memory() -> None:
    """Skip where Linux does not let a process begin anew to count its memory."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"memory of one piece of work is not measured here: {error}")
