"""Proxies: scalars of the low pass that are meant to tell when high resolution matters.

Each is one formula for NumPy arrays and torch tensors alike, of the trace (B, L+1, D) and the logits
(B, C), and returns (B,). Whether a large value asks for escalation is not stated here: fit learns it.
To add one, write the function and put it into PROXIES.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

from pipeline.errors import PipelineError

# np.ndarray or torch.Tensor: the formulas use only what both share.
Array: TypeAlias = Any
Proxy: TypeAlias = Callable[[Array, Array], Array]


def cls_change(trace: Array, _logits: Array) -> Array:
    """Mean L2 step of the CLS token from layer to layer: mean_l |trace[l+1] - trace[l]|."""
    steps = trace[:, 1:] - trace[:, :-1]
    return ((steps**2).sum(-1) ** 0.5).mean(-1)


def confidence(_trace: Array, logits: Array) -> Array:
    """Largest softmax probability (Hendrycks & Gimpel 2017)."""
    return _sorted(_probabilities(logits))[:, -1]


def entropy(_trace: Array, logits: Array) -> Array:
    """Entropy of the softmax in nats: -sum_c p[c] log p[c]."""
    p = _probabilities(logits)
    # The smallest normal float32 keeps 0 log 0 at 0.
    return -(p * _library(p).log(p + 1.1754944e-38)).sum(-1)


def margin(_trace: Array, logits: Array) -> Array:
    """Difference of the two largest softmax probabilities (Scheffer et al. 2001)."""
    p = _sorted(_probabilities(logits))
    return p[:, -1] - p[:, -2]


PROXIES: dict[str, Proxy] = {
    "cls_change": cls_change,
    "confidence": confidence,
    "entropy": entropy,
    "margin": margin,
}


def get_proxy(name: str) -> Proxy:
    if name not in PROXIES:
        raise PipelineError(f"fit.proxy: {name!r} is not known; expected one of {', '.join(PROXIES)}")
    return PROXIES[name]


def _library(values: Array) -> ModuleType:
    """numpy or torch, whichever made `values`; this module imports neither."""
    return sys.modules[type(values).__module__.partition(".")[0]]


def _sorted(values: Array) -> Array:
    """Ascending along the last axis."""
    ordered = _library(values).sort(values)
    return ordered if isinstance(ordered, type(values)) else ordered[0]


def _probabilities(logits: Array) -> Array:
    """Softmax, shifted by the maximum so that nothing overflows."""
    library = _library(logits)
    powers = library.exp(logits - library.amax(logits, -1)[:, None])
    return powers / powers.sum(-1)[:, None]
