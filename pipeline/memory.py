"""Peak memory of one piece of work, apart from everything that ran before it in the process."""

import gc
import multiprocessing
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from pipeline.engines.compiled import compiled_model
from pipeline.malloc import return_freed_memory

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
# Loaded before the count begins: libraries are not what a policy is charged for.
_PRELOADED = ["pipeline.cascade", "pipeline.engines.native.engine", "pipeline.engines.openvino"]


def peak_memory_mb(work: Callable[[], None], device: torch.device) -> float | None:
    """Growth of memory while `work` builds what it needs and runs, in MB (1e6 bytes).

    CUDA: the allocator's peak. CPU: the resident set's peak in a process of its own, so `work` must be
    picklable; None where the system does not tell it (elsewhere than on Linux, and in some containers)
    or ends the process. Raises what `work` raises.
    """
    if device.type == "cuda":
        return _on_cuda(work, device)
    return _in_process(work) if _STATUS.exists() else None


def process_peak_mb(device: torch.device) -> float | None:
    """Peak of the whole process so far, in MB: resident set on Linux, allocator on CUDA."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return _status_mb("VmHWM") if _STATUS.exists() else None


def _on_cuda(work: Callable[[], None], device: torch.device) -> float:
    compiled_model.cache_clear()  # Else the models that one policy needs would be there from another.
    gc.collect()  # What an earlier piece left in a cycle would be counted as there, and then freed.
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _in_process(work: Callable[[], None]) -> float | None:
    """Forked off a server that has loaded the libraries and started no threads, which this process has."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    # Pickled here: to hand tensors over, multiprocessing would take a descriptor and shared memory for each.
    child = context.Process(target=_report, args=(pickle.dumps(work), sender))
    child.start()
    sender.close()
    with receiver:
        try:
            found: float | Exception | None = receiver.recv()
        except EOFError:
            found = None
        finally:
            child.join()
    if isinstance(found, Exception):
        raise found
    return found


def _report(work: bytes, sender: Connection) -> None:
    try:
        sender.send(_measure(pickle.loads(work)))
    except Exception as error:
        sender.send(error)


def _measure(work: Callable[[], None]) -> float | None:
    return_freed_memory()
    try:
        _RESET.write_text("5")  # The peak so far is that of loading.
    except OSError:  # Not allowed in every container.
        return None
    before_mb, files_mb = _status_mb("VmRSS"), _status_mb("RssFile")
    work()
    # What is read from files is the code of libraries, as much of it as runs.
    return _status_mb("VmHWM") - before_mb - max(0.0, _status_mb("RssFile") - files_mb)


def _status_mb(key: str) -> float:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"{_STATUS} has no {key}")
