"""The sections of params.yaml, one module each, so that a stage depends on its own sections only."""
