"""An engine of our own: of a pass of a small model, much is not matrix products.

`src` is the pass, in C++. What differs between processors, vectors and products, lies in folders of its own.
"""
