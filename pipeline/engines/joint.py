"""Two roles of one model in one compiled OpenVINO model, so that they share one copy of their weights.

Compiled apart, low and high push each other's weights out of the caches at every change between them.
OpenVINO shares what it packs within a compiled model alone, and only for constants of the same memory; so
both become branches of one `If`, whose condition is fixed in the request of each.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.quiet_openvino import opset, ov

# Smaller constants are the graph's own: shapes, axes, scales.
_SHARED_BYTES = 4096


class Part(NamedTuple):
    """One branch of a compiled pair: the first is taken where the condition holds."""

    compiled: ov.CompiledModel
    is_first: bool

    @property
    def image_input(self) -> int:
        return 1 if self.is_first else 2

    def create_request(self) -> ov.InferRequest:
        """A request that always takes this branch."""
        request = self.compiled.create_infer_request()
        request.set_input_tensor(0, ov.Tensor(np.array(self.is_first)))
        return request


def join_models(first: ov.Model, second: ov.Model) -> ov.Model:
    """Inputs: the condition, and an image for each branch; outputs: those of the branch that is taken.

    Both models take one input of a fixed shape, and give as many outputs of the same shapes.
    """
    _share_constants([first, second])
    condition = opset.parameter([], np.bool_)
    images = [opset.parameter(model.input(0).shape, np.uint8) for model in (first, second)]
    branch = opset.if_op(condition.output(0))
    branch.set_then_body(first)
    branch.set_else_body(second)
    branch.set_input(images[0].output(0), first.get_parameters()[0], None)
    branch.set_input(images[1].output(0), None, second.get_parameters()[0])
    outputs = [
        branch.set_output(*results) for results in zip(first.get_results(), second.get_results(), strict=True)
    ]
    return ov.Model([opset.result(output) for output in outputs], [condition, *images], "joint")


def _share_constants(models: Sequence[ov.Model]) -> None:
    """Constants of equal content come to lie in the same memory."""
    known: dict[Hashable, NDArray[np.generic]] = {}
    for model in models:
        for node in model.get_ops():
            if node.get_type_name() != "Constant" or node.get_byte_size() < _SHARED_BYTES:
                continue
            values = node.data
            key = values.shape, values.dtype.str, values.tobytes()
            shared = opset.constant(known.setdefault(key, values.copy()), shared_memory=True)
            node.output(0).replace(shared.output(0))
