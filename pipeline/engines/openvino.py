"""`openvino`: the fused graph compiled for the CPU, once for each batch size that it meets."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipeline.engines.base import (
    TOLERANCE,
    Answer,
    Engine,
    Spec,
    halvings,
    one_torch_thread,
    split_evenly,
)
from pipeline.engines.joint import Part, join_models
from pipeline.errors import PipelineError
from pipeline.fused import FusedViT
from pipeline.images import resize
from pipeline.quiet_openvino import ov

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Beyond this a piece's activations leave the caches of one core; at a few large pieces, one thread also waits
# longer for the other's last.
_MOST_TOKENS = 520
_WARM_UPS = 3
# One of the threads was once seen to answer wrongly, which could not be brought about again.
_BUILDS = 3
_LATENCY = {"PERFORMANCE_HINT": "LATENCY"}


class OpenVinoEngine(Engine):
    """A single image runs on all threads; of a batch, every thread runs pieces of its own.

    Threads that share a pass wait for each other at every layer, and all of them for one that lost its
    core to a decoder: as streams of one thread each they take a tenth less time, and lose only their own.
    Static shapes run faster than dynamic ones, so a batch is put together from fixed sizes.

    part: of a pair that was compiled for single images (`build_pair`); None: it gets a model of its own.
    """

    def __init__(self, spec: Spec, batch_size: int, part: Part | None = None) -> None:
        super().__init__(spec, batch_size)
        core, model = ov.Core(), None if part else convert(spec)
        self.images = torch.zeros(batch_size, 3, spec.size_px, spec.size_px, dtype=torch.uint8)
        single = part.compiled if part else compile_for(core, model, spec, 1, _LATENCY)
        self.whole = Answer(*(torch.zeros(batch_size, *output.shape[1:]) for output in single.outputs))
        self.single = part.create_request() if part else single.create_infer_request()
        self._bind(self.single, part.image_input if part else 0, 0, 1)
        streams = {"NUM_STREAMS": spec.runtime.threads, "ENABLE_CPU_PINNING": False}
        self.bound: dict[tuple[int, int], ov.InferRequest] = {}
        for _ in range(_BUILDS):
            self.bound.clear()
            self.compiled = {
                size: compile_for(core, model, spec, size, streams) for size in _sizes(spec, batch_size)
            }
            if self._warm_up():
                return
        raise PipelineError(
            f"openvino: batches at {spec.size_px} px are not answered as single images, in {_BUILDS} builds; "
            "use another runtime.backend"
        )

    def _warm_up(self) -> bool:
        """A thread sets a size up when it first meets it: not amid the work, where few batches are alike.

        Says whether all threads answer one image as it is answered alone.
        """
        generator = torch.Generator().manual_seed(0)
        shape = 1, 3, self.size_px, self.size_px
        image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        alone = self.run(image).each(torch.clone)
        counts = {min(size * self.runtime.threads, self.batch_size) for size in self.compiled}
        same = True
        for count in [1, *counts] * _WARM_UPS:  # Of two small pieces one thread may have taken both.
            found = self.run(image.repeat(count, 1, 1, 1))
            same &= all(map(self._are_near, found, alone))
        return same

    def _are_near(self, found: Tensor | None, expected: Tensor | None) -> bool:
        """Within the engine's tolerance; what is no number is near to what is none either."""
        if found is None or expected is None:
            return found is expected
        largest = float(expected.nan_to_num(0, 0, 0).abs().max())
        allowed = TOLERANCE[self.runtime.precision] * largest
        return torch.allclose(found, expected.expand_as(found), rtol=0, atol=allowed, equal_nan=True)

    def run(self, canvases: Tensor) -> Answer:
        count = len(canvases)
        if count == 1:
            self.images[:1].copy_(resize(canvases, self.size_px))
            self.single.infer(share_outputs=True)
        else:
            with one_torch_thread():
                self.images[:count].copy_(resize(canvases, self.size_px))
            self._run_pieces(count)
        return self.whole.each(lambda value: value[:count])

    def _run_pieces(self, count: int) -> None:
        pieces = split_evenly(count, list(self.compiled), self.runtime.threads)
        requests = [self._request(*piece) for piece in pieces]
        for request in requests:
            request.start_async()
        for request in requests:
            request.wait()

    def _request(self, start: int, size: int) -> ov.InferRequest:
        """The request for `size` images from `start` on, bound once."""
        if (start, size) not in self.bound:
            request = self.compiled[size].create_infer_request()
            self._bind(request, 0, start, size)
            self.bound[start, size] = request
        return self.bound[start, size]

    def _bind(self, request: ov.InferRequest, image_input: int, start: int, size: int) -> None:
        """Let it read and write its images' part of the engine's own memory."""
        rows = slice(start, start + size)
        request.set_input_tensor(image_input, _shared(self.images[rows]))
        for index, values in enumerate(value for value in self.whole if value is not None):
            request.set_output_tensor(index, _shared(values[rows]))


def build_pair(first: Spec, second: Spec) -> tuple[OpenVinoEngine, OpenVinoEngine]:
    """Engines for single images that share the weights, which both specs have in common."""
    second = replace(second, proxy=first.proxy)  # Two branches give the same outputs.
    models = [convert(spec) for spec in (first, second)]
    for model, spec in zip(models, (first, second), strict=True):
        model.reshape([1, 3, spec.size_px, spec.size_px])
    compiled = ov.Core().compile_model(join_models(*models), "CPU", {**_settings(first), **_LATENCY})
    return OpenVinoEngine(first, 1, Part(compiled, True)), OpenVinoEngine(second, 1, Part(compiled, False))


def _shared(values: Tensor) -> ov.Tensor:
    """The tensor's own memory, as OpenVINO sees it; it must outlive what it is handed to."""
    return ov.Tensor(values.numpy(), shared_memory=True)


def _sizes(spec: Spec, batch_size: int) -> list[int]:
    """The sizes of pieces to compile for, largest first; 1 is always among them."""
    tokens = spec.weights.architecture.count_tokens(spec.size_px)
    most = max(1, min(_MOST_TOKENS // tokens, batch_size // spec.runtime.threads))
    return halvings(1 << (most.bit_length() - 1)) if batch_size > 1 else []


def convert(spec: Spec) -> ov.Model:
    """The fused model for batches of any size."""
    shape = [-1, 3, spec.size_px, spec.size_px]
    example = torch.zeros(2, 3, spec.size_px, spec.size_px, dtype=torch.uint8)
    model = FusedViT(spec.weights, spec.size_px, spec.proxy, divisible=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the tracer, on sizes that are constant here.
        # OpenVINO's own tracing checks itself, which takes a third of the time; the tests hold it to eager.
        traced = torch.jit.trace(model, example, check_trace=False)
        return ov.convert_model(traced, input=[(shape, ov.Type.u8)])


def compile_for(
    core: ov.Core, model: ov.Model, spec: Spec, size: int, how: Mapping[str, Any]
) -> ov.CompiledModel:
    """Compiled for batches of `size` images; `how` are further settings of OpenVINO's."""
    shaped = model.clone()
    shaped.reshape([size, 3, spec.size_px, spec.size_px])
    return core.compile_model(shaped, "CPU", {**_settings(spec), **how})


def _settings(spec: Spec) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[spec.runtime.precision],
        "INFERENCE_NUM_THREADS": spec.runtime.threads,
    }
