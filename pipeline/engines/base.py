"""The interface of an engine: a model at one role, built once for batches of up to a size.

A canvas is the decoded image at the high size, uint8 RGB. Resizing to the role's own size happens inside,
so that whatever times an engine pays for it. Everything a pass says comes from one call.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.engines.staging import Staging
from pipeline.params.runtime import Precision
from pipeline.proxies import Proxy
from pipeline.runtime import Runtime
from pipeline.vit import Weights
from pipeline.zoo import IMAGENET, Normalisation

# Largest error against eager float32 that an engine may have: of logits, embedding and trace as a share of
# their largest value, so that one number fits models of any scale.
TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 5e-2, "int8": 1e-1}


@dataclass(frozen=True)
class Spec:
    """What an engine is built from: canvases of `canvas_px` come in, the model sees `size_px`.

    proxy: the score that it computes beside, None where none is asked for.
    """

    weights: Weights
    canvas_px: int
    size_px: int
    runtime: Runtime
    proxy: Proxy | None = None

    def __post_init__(self) -> None:
        if self.size_px > self.canvas_px:
            raise ValueError(f"an image of {self.size_px} px from a canvas of {self.canvas_px} px")


def describe_transform(normalisation: Normalisation) -> str:
    """How a canvas becomes the input of a role; part of every fingerprint."""
    mean, std = normalisation
    pixels = "ImageNet mean and std" if normalisation == IMAGENET else f"mean {mean} and std {std}"
    return f"bilinear antialiased resize of uint8, then {pixels}"


class Answer(NamedTuple):
    """A pass over B images, on the engine's device, float32; valid until the engine's next run.

    logits (B, C), embedding (B, D), trace (B, L+1, D) as in `vit.Pass`, proxy (B,) or None.
    """

    logits: Tensor
    embedding: Tensor
    trace: Tensor
    proxy: Tensor | None = None

    def each(self, function: Callable[[Tensor], Tensor]) -> "Answer":
        """The answer with every tensor that it has replaced by the function's."""
        return Answer(*(None if value is None else function(value) for value in self))  # type: ignore[arg-type]


class Prediction(NamedTuple):
    """What a policy reads of a pass over B images, on the host; valid until the engine's next run.

    top1 (B,) class indices, proxy (B,) or None.
    """

    top1: NDArray[np.int64]
    proxy: NDArray[np.floating] | None


# Waits for a prediction that a GPU still works on.
Coming = Callable[[], Prediction]


def summarize(answer: Answer) -> Tensor:
    """(2, B) float32: index of the largest logit, and the proxy; (1, B) where there is none."""
    rows = [answer.logits.argmax(1).float()]
    return torch.stack(rows if answer.proxy is None else [*rows, answer.proxy.float()])


def _read(summary: Tensor) -> Prediction:
    top1, *proxy = summary.numpy()
    return Prediction(top1.astype(np.int64), proxy[0] if proxy else None)


def join(parts: list[Answer]) -> Answer:
    """One answer of copies, in the order of the parts."""
    return Answer(*(None if values[0] is None else torch.cat(values) for values in zip(*parts, strict=True)))  # type: ignore[arg-type]


class Engine(ABC):
    """One role's model; `batch_size` is the largest batch that `run` takes."""

    def __init__(self, spec: Spec, batch_size: int) -> None:
        self.spec = spec
        self.size_px, self.runtime, self.batch_size = spec.size_px, spec.runtime, batch_size
        self._staging: Staging | None = None

    def upload(self, canvases: Tensor) -> Tensor:
        """Host uint8 (B, 3, S, S) to the device; to a GPU while it works on the batch before."""
        device = self.runtime.device
        if device.type == "cpu":
            return canvases
        if len(canvases) == 1:
            return canvases.to(device, non_blocking=True)
        if self._staging is None:
            px = self.spec.canvas_px
            self._staging = Staging((self.batch_size, 3, px, px), device)
        return self._staging.transfer(canvases)

    @abstractmethod
    def run(self, canvases: Tensor) -> Answer:
        """Device uint8 (B, 3, canvas_px, canvas_px) to an answer, which on a GPU may still be under way."""

    def summarize(self, canvases: Tensor) -> Tensor:
        """As `run`, and of its answer what a policy reads; valid until the engine's next run."""
        return summarize(self.run(canvases))

    def begin(self, canvases: Tensor) -> Coming:
        """As `predict`, but without waiting for a GPU: what it returns does, when called.

        That prediction stays valid. On a CPU all is done before.
        """
        if self.runtime.device.type == "cpu":
            top1, proxy = self.predict(canvases)
            kept = Prediction(top1.copy(), None if proxy is None else proxy.copy())
            return lambda: kept
        # Into pinned memory, for which the host need not wait; one transfer, and so one synchronisation.
        summary = self.summarize(canvases).to("cpu", non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()

        def wait() -> Prediction:
            arrived.synchronize()
            return _read(summary)

        return wait

    def predict(self, canvases: Tensor) -> Prediction:
        """As `run`, and to the host."""
        if self.runtime.device.type != "cpu":
            return self.begin(canvases)()
        answer = self.run(canvases)
        # NumPy has no threads to get into the engine's way.
        proxy = None if answer.proxy is None else answer.proxy.numpy()
        return Prediction(answer.logits.numpy().argmax(1), proxy)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Torch's idle threads spin for a while after their work, on the cores that an engine's own then want."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def halvings(batch_size: int) -> list[int]:
    """batch_size, half of it, and so on down to one."""
    sizes = [batch_size]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    return sizes


def split_evenly(count: int, sizes: list[int], workers: int) -> Iterator[tuple[int, int]]:
    """(start, size) of pieces that make up `count`, each of the descending `sizes` down to 1.

    Every worker gets a piece of the largest size that leaves none of them idle, and so on with the rest.
    """
    start = 0
    while start < count:
        size = next((size for size in sizes if size * workers <= count - start), 1)
        for _ in range(min(workers, count - start)):
            yield start, size
            start += size
