"""Progress of long work: a bar with time left in a terminal, plain lines at intervals elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import click
from tqdm import tqdm

LINE_INTERVAL_S = 10.0


class Advance(Protocol):
    """Called with the number of units done since the last call."""

    def __call__(self, amount: int = 1, /) -> object: ...


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
        decimals = 0 if rate >= 1 else 2
        of_total = f" of {self.total}" if self.total else ""
        click.echo(
            f"{self.label}: {self.done}{of_total} {self.unit}, {rate:.{decimals}f} {self.unit}/s", err=True
        )


@contextmanager
def show_share(label: str) -> Iterator[Callable[[float, str], None]]:
    """For work that knows its share and not its units: called with a share of 0 to 1 and what to say."""
    if sys.stderr.isatty():
        with tqdm(total=100, desc=label, bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {postfix}") as bar:

            def show(share: float, text: str) -> None:
                bar.set_postfix_str(text, refresh=False)
                bar.update(100 * share - bar.n)

            yield show
    else:
        yield _ShareLines(label).show


class _ShareLines:
    def __init__(self, label: str) -> None:
        self.label, self.last_s = label, 0.0

    def show(self, share: float, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self.last_s >= LINE_INTERVAL_S or share >= 1:
            self.last_s = now_s
            click.echo(f"{self.label}: {100 * share:.1f} %, {text}", err=True)
