"""An engine of our own, for AMX and for AVX2: a pass of a small model is mostly not matrix products.

`src` is the pass, in C++. What differs between the two, vectors and products, has a folder for each.
"""
