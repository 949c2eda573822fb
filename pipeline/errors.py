"""The one error that a user is meant to read, and that of memory, which has several names."""


class PipelineError(Exception):
    """A fault of input, settings or machine: says what, where, what was expected and what to do."""


def is_out_of_memory(error: BaseException) -> bool:
    """Python's own, or torch's of GPU or CPU: known by what they say, so that nothing imports torch."""
    named = type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error)
    return named or isinstance(error, MemoryError)
