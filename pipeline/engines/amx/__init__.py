"""An engine of our own, for processors with AMX: a pass of a small model is mostly not matrix products.

`src` is the pass, in C++: lanes and tiles, then layers, attention and resize, then the pass and its threads.
"""
