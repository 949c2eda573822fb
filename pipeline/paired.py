"""The interval of a difference between two shares of the same images: Tango's score interval.

Resamples cannot show a loss that no image of the sample has, and are too sure where few images have one.
(Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design".)
"""

import math
from collections.abc import Callable

from scipy.stats import norm

from pipeline.calibration import Floats
from pipeline.deferral import Interval

_BISECTIONS = 50


def interval_of_difference(values: Floats, confidence: float) -> Interval:
    """Of the mean of values (N,), each -1, 0 or 1."""
    count, more, less = len(values), int((values > 0).sum()), int((values < 0).sum())
    value = (more - less) / count
    sigmas = float(norm.ppf((1 + confidence) / 2))

    def is_in_question(difference: float) -> bool:
        spread = 2 * _likeliest_less(count, more, less, difference) + difference * (1 - difference)
        return count * (value - difference) ** 2 <= sigmas**2 * spread

    return Interval(value, _last(is_in_question, value, -1.0), _last(is_in_question, value, 1.0))


def _likeliest_less(count: int, more: int, less: int, difference: float) -> float:
    """The likeliest share of -1 where that of 1 is larger by `difference`."""
    linear = (2 * count - more + less) * difference - more - less
    constant = less * difference * (1 - difference)
    # Rounding may leave less than 0 where it is 0.
    return (math.sqrt(max(linear**2 + 8 * count * constant, 0.0)) - linear) / (4 * count)


def _last(holds: Callable[[float], bool], first: float, end: float) -> float:
    """On the way from `first`, where it holds, to `end`."""
    if holds(end):
        return end
    for _ in range(_BISECTIONS):
        middle = (first + end) / 2
        first, end = (middle, end) if holds(middle) else (first, middle)
    return first
