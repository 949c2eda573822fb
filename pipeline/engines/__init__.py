"""How a model is run: one module per backend behind the interface of `base`."""
