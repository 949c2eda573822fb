"""The learned proxy: a weighted sum of what single proxies see, with weights from the calibration images."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.proxies import (
    TINY,
    Array,
    cls_early_to_final,
    confidence,
    energy,
    entropy,
    library_of,
    margin,
    probabilities_of,
    sorted_values,
    step_lengths,
    steps_of,
    turns_of,
)

NAME = "learned"
_LARGEST = 10
_OF_LOGITS = (confidence, entropy, margin, energy)
# Columns of `layer_features` among which a model chooses: all, those of the logits, the probabilities.
GROUPS = (slice(None), slice(-_LARGEST - len(_OF_LOGITS), None), slice(-_LARGEST, None))


def layer_features(trace: Array, logits: Array) -> Array:
    """(B, 2L + 14): of the CLS token's L steps the logarithms of their lengths and the cosines between them,
    then how far it went in all but the first quarter, confidence, entropy, margin and energy, then the ten
    largest probabilities, ascending; where classes are fewer, zeros before them.
    """
    library = library_of(trace)
    columns = [feature(trace, logits)[:, None] for feature in (cls_early_to_final, *_OF_LOGITS)]
    lengths = library.log(step_lengths(trace) + TINY)
    largest = sorted_values(probabilities_of(logits))[:, -_LARGEST:]
    none = [0 * largest[:, :1]] * (_LARGEST - largest.shape[1])
    return library.concatenate([lengths, 1 - turns_of(steps_of(trace)), *columns, *none, largest], -1)


@dataclass(frozen=True)
class Learned:
    """A proxy like the others: features (B, F) times weights (F,), plus bias."""

    weights: tuple[float, ...]
    bias: float

    @classmethod
    def from_coefficients(cls, coefficients: Sequence[float]) -> "Learned":
        """The weights, and the bias as the last."""
        *weights, bias = coefficients
        return cls(tuple(weights), bias)

    @property
    def coefficients(self) -> tuple[float, ...]:
        return (*self.weights, self.bias)

    def __call__(self, trace: Array, logits: Array) -> Array:
        return self.apply(layer_features(trace, logits))

    def apply(self, features: Array) -> Array:
        """(B, F) to (B,)."""
        weights = library_of(features).asarray(self.weights, dtype=features.dtype, device=features.device)
        return features @ weights + self.bias
