"""Two switches of glibc's allocator; where the C library has none, nothing happens."""

import ctypes

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let the process reuse large blocks instead of returning each to the system.

    Otherwise every forward pass of a large batch pays page faults for its activations anew: at 64 images
    of 64 px two to three times the time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Older ones refuse more than 32 MiB; to set the other alone would keep this one at its least.
    if mallopt is not None and any(mallopt(_M_MMAP_THRESHOLD, size) for size in (1 << 30, 1 << 25)):
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def return_freed_memory() -> None:
    """Give back what is kept, so that new memory shows as growth of the process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
