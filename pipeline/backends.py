"""Which backends this machine can run, and what is missing for the others."""

import importlib.util
from typing import get_args

import torch

from pipeline.architecture import Architecture
from pipeline.compiler import NEEDED, find_compiler
from pipeline.errors import PipelineError
from pipeline.params.runtime import Backend, Precision

NATIVE = ("amx", "avx512", "avx2")
# As a rule the fastest first; a fixed order, so that all stages of a run choose alike.
PREFERENCE = {
    "cuda": ("cudagraph", "compile", "eager"),
    "cpu": (*NATIVE, "openvino", "compile", "eager"),
}
BACKENDS = tuple(name for name in get_args(Backend) if name != "auto")
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16"}


def choose_backend(wanted: str, device: torch.device, precision: Precision, shape: Architecture) -> str:
    """`auto` to the fastest that can run the network here; raises PipelineError where none can, or a named
    one cannot."""
    asked = PREFERENCE[device.type] if wanted == "auto" else (wanted,)
    reasons: dict[str, str] = {}
    for name in asked:
        reason = why_not(name, device, precision, shape)
        if reason is None:
            return name
        reasons[name] = reason
    told = "; ".join(f"{name} cannot run {precision} on {device}: {why}" for name, why in reasons.items())
    raise PipelineError(f"runtime.backend: {told}")


def why_not(
    backend: str, device: torch.device, precision: Precision, shape: Architecture | None = None
) -> str | None:
    """What is missing for the backend, and what to do; None where it can run.

    shape: the network that it is asked for; None asks for the machine alone.
    """
    if precision == "int8" and backend not in NATIVE:
        return "it does not compute in 8 bits; use runtime.backend: avx512"
    if backend in (*NATIVE, "openvino") and device.type != "cpu":
        return "it runs on the CPU; use runtime.device: cpu"
    if backend in NATIVE:
        from pipeline.engines.native.library import why_not_native

        return why_not_native(backend, precision, shape)
    if backend == "openvino":
        return _why_not_openvino(precision)
    if backend == "cudagraph" and device.type != "cuda":
        return "it needs an NVIDIA GPU and a torch built for CUDA; use runtime.backend: auto"
    if backend in ("compile", "cudagraph"):
        return _why_no_compiler(device)
    return None


def _why_not_openvino(precision: Precision) -> str | None:
    if importlib.util.find_spec("openvino") is None:
        return "it is not installed; pip install openvino"
    from pipeline.quiet_openvino import ov

    if _CAPABILITIES[precision] in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    return "the processor has no such instructions; use runtime.precision: float32"


def _why_no_compiler(device: torch.device) -> str | None:
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch.compile needs triton on CUDA; pip install triton"
    if find_compiler() is None:
        return f"torch.compile {NEEDED}"
    return None
