"""Which device, precision and thread count the forward passes get; nothing falls back in silence."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pipeline.architecture import Architecture
from pipeline.backends import choose_backend
from pipeline.errors import PipelineError
from pipeline.malloc import keep_freed_memory
from pipeline.params.model import Role
from pipeline.params.runtime import Precision, RuntimeParams
from pipeline.processor import count_cores

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Runtime:
    """Resolved: no `auto` is left. `threads` is the number that a pass uses on the CPU.

    low_backend, low_precision: of the low pass, where it has a precision of its own.
    """

    device: torch.device
    backend: str
    precision: Precision
    threads: int
    low_backend: str | None = None
    low_precision: Precision | None = None

    def of(self, role: Role) -> "Runtime":
        """What the passes of the role run on."""
        one = replace(self, low_backend=None, low_precision=None)
        if role != "low" or self.low_precision is None or self.low_backend is None:
            return one
        return replace(one, backend=self.low_backend, precision=self.low_precision)


def resolve_runtime(params: RuntimeParams, shape: Architecture) -> Runtime:
    """Choose device and backend for a network, and prepare the process.

    Raises PipelineError where they cannot be had.
    """
    device = _device(params.device)
    backend = choose_backend(params.backend, device, params.precision, shape)
    # torch knows of no container's share: threads beyond it would wait for each other's turn.
    threads = params.threads or min(torch.get_num_threads(), count_cores())
    runtime = Runtime(device, backend, params.precision, threads)
    if params.low_precision not in (None, params.precision):
        low_backend = choose_backend(params.backend, device, params.low_precision, shape)
        runtime = replace(runtime, low_backend=low_backend, low_precision=params.low_precision)
    prepare_process(runtime)
    return runtime


def prepare_process(runtime: Runtime) -> None:
    """What a process needs before it runs engines: the allocator's and torch's settings."""
    keep_freed_memory()
    if runtime.device.index is not None:
        # That of streams, events and graphs which name none.
        torch.cuda.set_device(runtime.device)
    torch.set_num_threads(runtime.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, convolutions included.


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device(wanted: str) -> torch.device:
    usable = torch.cuda.is_available()
    if wanted == "auto":
        if not usable and _NVIDIA_DRIVER.exists():
            raise PipelineError(
                "runtime.device: auto finds an NVIDIA driver that this torch cannot use; "
                "mend the installation, or say cpu to run on the CPU on purpose"
            )
        return torch.device("cuda" if usable else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not (usable and (device.index or 0) < torch.cuda.device_count()):
        raise PipelineError(
            f"runtime.device: {wanted} is not available (torch sees {torch.cuda.device_count()} GPUs); "
            "use auto or cpu"
        )
    return device
