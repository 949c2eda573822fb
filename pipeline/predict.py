"""Answers for new images: the cascade that replay times, over any number of images, block by block."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.ahead import decode_ahead, run_ahead
from pipeline.answers import NEEDS
from pipeline.cascade import Bench, Cascade
from pipeline.engines.base import Answer, Coming, Engine, Prediction
from pipeline.errors import PipelineError
from pipeline.images import decode_canvas, stack_canvases
from pipeline.inputs import Input
from pipeline.policy import score
from pipeline.reader import Batch

# The escalated images of a block share high batches; a block of one low batch would leave those nearly empty.
_BLOCK_BATCHES = 4
_FAULTS = (OSError, RuntimeError, ValueError)

OnBroken = Callable[[str, str], object]


class Row(NamedTuple):
    """The answer for one image.

    class_name: what the weights call class `top1`, None where they do not know. score: the policy's; larger
    means that high resolution matters more.
    """

    image: str
    class_name: str | None
    top1: int
    score: float
    escalated: bool


def _decode_all(
    images: Iterable[Input], canvas_px: int, on_broken: OnBroken | None
) -> Iterator[tuple[str, Tensor]]:
    decoded, broken, last = 0, 0, ""
    decode = partial(decode_canvas, size_px=canvas_px)
    for image, found in decode_ahead(images, lambda image: image.read(), decode, _FAULTS):
        if isinstance(found, Tensor):
            decoded += 1
            yield image.name, found
            continue
        last = f"{image.name}: broken image ({found})"
        if on_broken is None:
            raise PipelineError(f"{last}; replace it, or have broken images left out (--on-broken skip)")
        broken += 1
        on_broken(image.name, str(found))
    if broken and not decoded:
        raise PipelineError(
            f"all {broken} images are broken, expected JPEG, PNG, WebP, BMP, TIFF or PPM; the last: {last}"
        )


def _read_blocks(images: Iterable[Input], engine: Engine, on_broken: OnBroken | None) -> Iterator[Batch]:
    decoded = _decode_all(images, engine.spec.canvas_px, on_broken)
    for number in itertools.count():
        pairs = list(itertools.islice(decoded, _BLOCK_BATCHES * engine.batch_size))
        if not pairs:
            return
        names, canvases = zip(*pairs, strict=True)
        yield Batch(number, list(names), stack_canvases(canvases))


class _Overheard(Engine):
    """The low engine, of which the proxy is kept as well: the cascade's answers do not carry it."""

    def __init__(self, inner: Engine) -> None:
        super().__init__(inner.spec, inner.batch_size)
        self.inner = inner
        self.heard: list[NDArray[np.floating]] = []

    def upload(self, canvases: Tensor) -> Tensor:
        return self.inner.upload(canvases)

    def run(self, canvases: Tensor) -> Answer:
        return self.inner.run(canvases)

    def begin(self, canvases: Tensor) -> Coming:
        coming = self.inner.begin(canvases)
        return lambda: self._hear(coming())

    def predict(self, canvases: Tensor) -> Prediction:
        return self._hear(self.inner.predict(canvases))

    def _hear(self, found: Prediction) -> Prediction:
        assert found.proxy is not None
        self.heard.append(found.proxy.copy())  # The engine's next run may overwrite it.
        return found

    def take_proxy(self) -> NDArray[np.floating]:
        """Of all images since the last call, (N,), in the order that they came in."""
        taken, self.heard = self.heard, []
        return np.concatenate(taken)


def _name_classes(top1: NDArray[np.int64], classes: tuple[str, ...] | None) -> list[str | None]:
    """A model may have more logits than classes that it knows."""
    known = classes or ()
    return [known[index] if index < len(known) else None for index in top1]


def build_cascade(bench: Bench, policy: Path) -> Cascade:
    """Engines of low and high; refuses a policy, read from that path, that was fitted under other conditions.

    Batches are as large as the bench allows and not, as replay's, what is measured to be fastest: the
    measuring would take longer than many a folder of images.
    """
    bench.check_policy(policy)
    return bench.build(dict.fromkeys(NEEDS["adaptive"], bench.batch_size))


def predict(cascade: Cascade, images: Iterable[Input], on_broken: OnBroken | None = None) -> Iterator[Row]:
    """The rows in the order of the images, which threads decode a few blocks ahead.

    on_broken: called, in another thread, with name and reason of each image that is left out. Without it a
    broken image raises PipelineError, as in any case do images that are all broken.
    """
    low = _Overheard(cascade.engines["low"])
    overheard = Cascade({"low": low, "high": cascade.engines["high"]}, cascade.policy, cascade.deadline_ms)
    for block in run_ahead(_read_blocks(images, low, on_broken)):
        top1, escalated = overheard.answer("adaptive", block.canvases)
        scores = score(low.take_proxy(), cascade.policy.direction)
        names = _name_classes(top1, low.spec.weights.classes)
        columns = block.image_ids, names, top1.tolist(), scores.tolist(), escalated.tolist()
        yield from itertools.starmap(Row, zip(*columns, strict=True))
