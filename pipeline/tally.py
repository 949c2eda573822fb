"""What an extraction did, and how long each of its overlapping parts was at work."""

from dataclasses import dataclass


@dataclass
class Tally:
    """Seconds at work of reader, forward and writer; `images` counts those of this run only.

    The reader's are those of its threads together, over their number.
    """

    images: int = 0
    resumed_images: int = 0
    batch_size: int = 0
    out_of_memory_halvings: int = 0
    reader_s: float = 0.0
    forward_s: float = 0.0
    writer_s: float = 0.0
    wall_s: float = 0.0
