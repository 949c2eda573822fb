"""The one error that a user is meant to read."""


class PipelineError(Exception):
    """A fault of input, settings or machine: says what, where, what was expected and what to do."""
