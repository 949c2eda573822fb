"""How numbers are written in tables and sentences; what is missing is an en dash."""

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
    return DASH if share is None else f"{100 * share:.1f} %"


def points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def milliseconds(value_ms: float | None) -> str:
    """Two decimals, three below a millisecond: a GPU's forward pass must not round to 0.1."""
    return number(value_ms, 3 if value_ms is not None and value_ms < 1 else 2)


def times(ratio: float | None) -> str:
    return DASH if ratio is None else f"{ratio:.2f}×"


def interval_of(document: Mapping[str, Any], low: str, high: str, text: Callable[[float], str]) -> str:
    """In brackets, for behind the value; nothing where the document does not hold it."""
    if low not in document or high not in document:
        return ""
    return f" (interval {text(document[low])} to {text(document[high])})"
