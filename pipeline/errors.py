"""The one error that a user is meant to read, and that of memory, which has several names."""

from typing import Any


class PipelineError(Exception):
    """A fault of input, settings or machine: says what, where, what was expected and what to do."""


def is_out_of_memory(error: BaseException) -> bool:
    """Python's own, or torch's of GPU or CPU: known by what they say, so that nothing imports torch."""
    named = type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error)
    return named or isinstance(error, MemoryError)


def shorten(key: str, value: Any) -> str:
    """The value of a key, for an error; of a digest as much as tells it from another."""
    return str(value)[:12] if key.endswith("sha256") else str(value)
