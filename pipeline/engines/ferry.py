"""From the host to a GPU while it works: through pinned memory, on a stream of its own.

A copy from ordinary memory holds up the host until it is through, and in the stream of the passes waits for
the pass before. So the GPU would be idle while a batch crosses.
"""

import itertools

import numpy as np
import torch
from torch import Tensor


class Ferry:
    """Room for two batches of uint8 in pinned memory: one crosses while the next is put in."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.boats = itertools.cycle([_Boat(shape), _Boat(shape)])

    def carry(self, values: Tensor) -> Tensor:
        """Host uint8 of at most the shape's rows to the device, for whatever its current stream does next."""
        boat = next(self.boats)
        boat.is_empty.synchronize()
        boarded = boat.memory[: len(values)]
        # torch would wake all its threads, which takes longer than one needs for a batch.
        np.copyto(boarded.numpy(), values.numpy())
        with torch.cuda.stream(self.stream):
            arrived = boarded.to(self.device, non_blocking=True)
            boat.is_empty.record()
        here = torch.cuda.current_stream(self.device)
        here.wait_event(boat.is_empty)
        arrived.record_stream(here)  # Its memory is not given to another batch before what is queued here.
        return arrived


class _Boat:
    """is_empty: the last copy out of the memory is through."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.memory = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.is_empty = torch.cuda.Event()
