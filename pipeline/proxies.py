"""Proxies: scalars of the low pass that are meant to tell when high resolution matters.

Each is one formula for NumPy arrays and torch tensors alike, of the trace (B, L+1, D) and the logits
(B, C), and returns (B,). Whether a large value asks for escalation is not stated here: fit learns it.
To add one, write the function and put it into PROXIES. `pipeline.learned` combines them.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

from pipeline.errors import PipelineError
from pipeline.params.base import nearest

# np.ndarray or torch.Tensor: the formulas use only what both share.
Array: TypeAlias = Any
# The smallest normal float32: divisions by it and logarithms of it are finite.
TINY = 1.1754944e-38
Proxy: TypeAlias = Callable[[Array, Array], Array]


def cls_change(trace: Array, _logits: Array) -> Array:
    """Mean L2 step of the CLS token from layer to layer: mean_l |trace[l+1] - trace[l]|."""
    return step_lengths(trace).mean(-1)


def cls_last(trace: Array, _logits: Array) -> Array:
    """Last step of the CLS token: |trace[L] - trace[L-1]|; small where it has settled (CALM's saturation)."""
    return _lengths(trace[:, -1] - trace[:, -2])


def cls_max(trace: Array, _logits: Array) -> Array:
    """Largest step of the CLS token: max_l |trace[l+1] - trace[l]|."""
    return library_of(trace).amax(step_lengths(trace), -1)


def cls_last_share(trace: Array, _logits: Array) -> Array:
    """Last step as a share of the whole path: |trace[L] - trace[L-1]| / sum_l |trace[l+1] - trace[l]|."""
    lengths = step_lengths(trace)
    return lengths[:, -1] / (lengths.sum(-1) + TINY)


def cls_early_to_final(trace: Array, _logits: Array) -> Array:
    """How far the CLS token went after the first quarter of the blocks: |trace[L] - trace[L/4]| (dViT)."""
    return _lengths(trace[:, -1] - trace[:, (trace.shape[1] - 1) // 4])


def cls_turn(trace: Array, _logits: Array) -> Array:
    """Mean turn between successive steps s of the CLS token: mean_l 1 - cos(s[l], s[l+1]), 0 to 2."""
    return turns_of(steps_of(trace)).mean(-1)


def confidence(_trace: Array, logits: Array) -> Array:
    """Largest softmax probability (Hendrycks & Gimpel 2017)."""
    return sorted_values(probabilities_of(logits))[:, -1]


def entropy(_trace: Array, logits: Array) -> Array:
    """Entropy of the softmax in nats: -sum_c p[c] log p[c]."""
    p = probabilities_of(logits)
    # Keeps 0 log 0 at 0.
    return -(p * library_of(p).log(p + TINY)).sum(-1)


def margin(_trace: Array, logits: Array) -> Array:
    """Difference of the two largest softmax probabilities (Scheffer et al. 2001)."""
    p = sorted_values(probabilities_of(logits))
    return p[:, -1] - p[:, -2]


def energy(_trace: Array, logits: Array) -> Array:
    """Log of the summed exponentials of the logits: the negative free energy (Liu et al. 2020)."""
    library = library_of(logits)
    largest = library.amax(logits, -1)
    return largest + library.log(library.exp(logits - largest[:, None]).sum(-1))


PROXIES: dict[str, Proxy] = {
    "cls_change": cls_change,
    "cls_last": cls_last,
    "cls_max": cls_max,
    "cls_last_share": cls_last_share,
    "cls_early_to_final": cls_early_to_final,
    "cls_turn": cls_turn,
    "confidence": confidence,
    "entropy": entropy,
    "margin": margin,
    "energy": energy,
}


def get_proxy(name: str) -> Proxy:
    if name not in PROXIES:
        raise PipelineError(f"fit.proxy: {name!r} is not known; {nearest(name, [*PROXIES, 'learned'])}")
    return PROXIES[name]


def steps_of(trace: Array) -> Array:
    """(B, L, D): what each block adds."""
    return trace[:, 1:] - trace[:, :-1]


def step_lengths(trace: Array) -> Array:
    """(B, L): L2 norms of the steps."""
    return _lengths(steps_of(trace))


def turns_of(steps: Array) -> Array:
    """(B, L-1): 1 - cos between successive steps (B, L, D)."""
    lengths = _lengths(steps)
    products = (steps[:, 1:] * steps[:, :-1]).sum(-1)
    return 1 - products / (lengths[:, 1:] * lengths[:, :-1] + TINY)


def _lengths(vectors: Array) -> Array:
    """L2 norms along the last axis."""
    return (vectors**2).sum(-1) ** 0.5


def library_of(values: Array) -> ModuleType:
    """numpy or torch, whichever made `values`; this module imports neither."""
    return sys.modules[type(values).__module__.partition(".")[0]]


def sorted_values(values: Array) -> Array:
    """Ascending along the last axis."""
    ordered = library_of(values).sort(values)
    return ordered if isinstance(ordered, type(values)) else ordered[0]


def probabilities_of(logits: Array) -> Array:
    """Softmax, shifted by the maximum so that nothing overflows."""
    library = library_of(logits)
    powers = library.exp(logits - library.amax(logits, -1)[:, None])
    return powers / powers.sum(-1)[:, None]
