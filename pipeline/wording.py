"""How numbers are written in tables and sentences; what is missing is an en dash."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DASH = "–"


@dataclass(frozen=True)
class Grid:
    """A table of finished texts; the first column names the row, the others are right-aligned."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def words(name: str) -> str:
    return name.replace("_", " ")


def number(value: float | None, decimals: int = 2) -> str:
    return DASH if value is None else f"{value:,.{decimals}f}"


def percent(share: float | None) -> str:
    """One decimal, more where that would make none or all of what is not."""
    if share is None:
        return DASH
    rest = min(abs(share), abs(1 - share))
    return f"{100 * share:.{max(1, _decimals(100 * rest))}f} %"


def points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def milliseconds(value_ms: float | None) -> str:
    """Two decimals, three below a millisecond, and two digits at least: a GPU takes microseconds."""
    if value_ms is None:
        return DASH
    return number(value_ms, max(3 if value_ms < 1 else 2, _decimals(value_ms) + 1))


def rate(per_s: float | None) -> str:
    """Whole numbers, with decimals below one."""
    return DASH if per_s is None else number(per_s, _decimals(per_s))


def times(ratio: float | None) -> str:
    """Two decimals, three where two would hide that there is a difference."""
    if ratio is None:
        return DASH
    return f"{ratio:.{3 if f'{ratio:.2f}' == '1.00' and ratio != 1 else 2}f}×"


def _decimals(value: float) -> int:
    """To the first digit of a number below one; none for those above, for zero, and for less than 1e-6."""
    return math.ceil(-math.log10(value)) if 1e-6 <= value < 1 else 0


def interval_of(document: Mapping[str, Any], low: str, high: str, text: Callable[[float], str]) -> str:
    """In brackets, for behind the value; nothing where the document does not hold it."""
    if low not in document or high not in document:
        return ""
    return f" (interval {text(document[low])} to {text(document[high])})"
