"""`openvino`: the fused graph compiled for the CPU, once for each batch size that it meets."""

import warnings
from typing import Any

import torch
from torch import Tensor

from pipeline.engines.base import Answer, Engine, Spec, halvings, join, split_exactly
from pipeline.fused import FusedViT
from pipeline.images import resize
from pipeline.quiet_openvino import ov

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine(Engine):
    """Static shapes run a tenth faster than dynamic ones, so a batch is put together from fixed sizes."""

    def __init__(self, spec: Spec, batch_size: int) -> None:
        super().__init__(spec, batch_size)
        core = ov.Core()
        model = _convert(spec)
        self.passes = {size: _FixedPass(core, model, spec, size) for size in halvings(batch_size)}

    def run(self, canvases: Tensor) -> Answer:
        images = resize(canvases, self.size_px)
        if len(images) in self.passes:
            return self.passes[len(images)](images)
        pieces = split_exactly(len(images), list(self.passes))
        parts = [self.passes[size](images[start : start + size]).each(torch.clone) for start, size in pieces]
        return join(parts)


class _FixedPass:
    """A compiled graph of one batch size; its input and outputs are allocated once."""

    def __init__(self, core: ov.Core, model: ov.Model, spec: Spec, size: int) -> None:
        shaped = model.clone()
        shaped.reshape([size, 3, spec.size_px, spec.size_px])
        compiled = core.compile_model(shaped, "CPU", _settings(spec))
        self.request = compiled.create_infer_request()
        self.request.infer()
        self.images = torch.from_numpy(self.request.get_input_tensor(0).data)
        outputs = [self.request.get_output_tensor(index).data for index in range(len(compiled.outputs))]
        self.answer = Answer(*map(torch.from_numpy, outputs))

    def __call__(self, images: Tensor) -> Answer:
        self.images.copy_(images)
        self.request.start_async()
        self.request.wait()
        return self.answer


def _convert(spec: Spec) -> ov.Model:
    shape = [-1, 3, spec.size_px, spec.size_px]
    example = torch.zeros(2, 3, spec.size_px, spec.size_px, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the tracer, on sizes that are constant here.
        return ov.convert_model(
            FusedViT(spec.weights, spec.size_px, spec.proxy),
            example_input=example,
            input=[(shape, ov.Type.u8)],
        )


def _settings(spec: Spec) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[spec.runtime.precision],
        "INFERENCE_NUM_THREADS": spec.runtime.threads,
    }
