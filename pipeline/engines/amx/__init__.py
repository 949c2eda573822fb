"""An engine of our own, for processors with AMX: a pass of a small model is mostly not matrix products."""
