"""`openvino`: the fused graph compiled for the CPU, once for each batch size that it meets."""

import warnings
from typing import Any

import torch
from torch import Tensor

from pipeline.engines.base import Answer, Engine, Spec, halvings, split_exactly
from pipeline.fused import FusedViT
from pipeline.images import resize
from pipeline.quiet_openvino import ov
from pipeline.vit import PATCH_PX

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Beyond this a pass's activations leave the caches: at 64 px, passes of 64 images take a fifth longer than
# passes of 16.
_MOST_TOKENS = 4200


class OpenVinoEngine(Engine):
    """Static shapes run a tenth faster than dynamic ones, so a batch is put together from fixed sizes."""

    def __init__(self, spec: Spec, batch_size: int) -> None:
        super().__init__(spec, batch_size)
        core = ov.Core()
        model = _convert(spec)
        self.passes = {size: _FixedPass(core, model, spec, size) for size in _sizes(spec, batch_size)}
        self.whole = self.passes[1].answer.each(lambda value: value.new_empty(batch_size, *value.shape[1:]))

    def run(self, canvases: Tensor) -> Answer:
        images = resize(canvases, self.size_px)
        if len(images) in self.passes:
            return self.passes[len(images)](images)
        for start, size in split_exactly(len(images), list(self.passes)):
            part = self.passes[size](images[start : start + size])
            for into, values in zip(self.whole, part, strict=True):
                if into is not None and values is not None:
                    into[start : start + size] = values
        return self.whole.each(lambda value: value[: len(images)])


class _FixedPass:
    """A compiled graph of one batch size, with an input and outputs of its own, allocated once."""

    def __init__(self, core: ov.Core, model: ov.Model, spec: Spec, size: int) -> None:
        shaped = model.clone()
        shaped.reshape([size, 3, spec.size_px, spec.size_px])
        compiled = core.compile_model(shaped, "CPU", _settings(spec))
        self.request = compiled.create_infer_request()
        self.images = torch.zeros(size, 3, spec.size_px, spec.size_px, dtype=torch.uint8)
        self.request.set_input_tensor(0, _shared(self.images))
        outputs = [torch.zeros(tuple(output.shape)) for output in compiled.outputs]
        for index, values in enumerate(outputs):
            self.request.set_output_tensor(index, _shared(values))
        self.answer = Answer(*outputs)
        self.request.infer(share_outputs=True)

    def __call__(self, images: Tensor) -> Answer:
        self.images.copy_(images)
        self.request.infer(share_outputs=True)
        return self.answer


def _shared(values: Tensor) -> ov.Tensor:
    """The tensor's own memory, as OpenVINO sees it; it must outlive what it is handed to."""
    return ov.Tensor(values.numpy(), shared_memory=True)


def _sizes(spec: Spec, batch_size: int) -> list[int]:
    """The batch sizes to compile for, largest first; 1 is always among them."""
    tokens = (spec.size_px // PATCH_PX) ** 2 + 1
    return [size for size in halvings(batch_size) if size == 1 or size * tokens <= _MOST_TOKENS]


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
