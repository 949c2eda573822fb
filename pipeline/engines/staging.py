"""From the host to a GPU while it works: through pinned memory, on a stream of its own.

A copy from pageable memory holds up the host until it is through, and in the stream of the passes waits for
the pass before. So the GPU would be idle while a batch is transferred.
"""

import itertools

import numpy as np
import torch
from torch import Tensor


class Staging:
    """Two buffers of uint8 in pinned memory: one is transferred while the other is filled."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.buffers = itertools.cycle([_Buffer(shape), _Buffer(shape)])

    def transfer(self, values: Tensor) -> Tensor:
        """Host uint8 of at most the shape's rows to the device, for whatever its current stream does next."""
        buffer = next(self.buffers)
        buffer.transferred.synchronize()
        staged = buffer.memory[: len(values)]
        # torch would wake all its threads, which takes longer than one needs for a batch.
        np.copyto(staged.numpy(), values.numpy())
        with torch.cuda.stream(self.stream):
            arrived = staged.to(self.device, non_blocking=True)
            buffer.transferred.record()
        current = torch.cuda.current_stream(self.device)
        current.wait_event(buffer.transferred)
        arrived.record_stream(current)  # Its memory is not reused before what is queued there.
        return arrived


class _Buffer:
    """transferred: the last copy out of the memory is through."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.memory = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.transferred = torch.cuda.Event()
