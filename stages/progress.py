"""Progress of long work: a bar with time left in a terminal, plain lines at intervals elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click
from tqdm import tqdm

LINE_INTERVAL_S = 10.0


class Advance(Protocol):
    """Called with the number of units done since the last call."""

    def __call__(self, amount: int = 1, /) -> None: ...


@contextmanager
def progress(label: str, total: int | None, unit: str) -> Iterator[Advance]:
    """`total` in units, None where unknown. Writes to standard error."""
    if sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit=f" {unit}", unit_scale=unit == "B", smoothing=0.1) as bar:
            yield bar.update
    else:
        yield _PlainLines(label, total, unit).advance


class _PlainLines:
    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.started_s = self.last_s = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        now_s = time.monotonic()
        if now_s - self.last_s < LINE_INTERVAL_S and self.done != self.total:
            return
        self.last_s = now_s
        rate = self.done / max(now_s - self.started_s, 1e-9)
        of_total = f" of {self.total}" if self.total else ""
        click.echo(f"{self.label}: {self.done}{of_total} {self.unit}, {rate:.0f} {self.unit}/s", err=True)
