"""Threads that work ahead of whoever takes the results; an error surfaces when its turn comes."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Queue
from typing import Generic, TypeVar

from pipeline.processor import count_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

_QUEUED = 4
# Handing a part to a thread costs as much as decoding a small image; photographs of 5 MB, in the parts of all
# threads, take 0.7 GB.
_PART = 8
_MOST_THREADS = 16
# Weight of the last part in the means of a pace.
_NEWS = 0.05


def count_threads() -> int:
    return min(count_cores(), _MOST_THREADS)


def map_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work` of every item, in their order, in several threads, a few parts ahead.

    The caller's thread draws the items. Where it takes results more slowly than one thread makes them, it
    makes them itself: others would only interrupt whatever keeps it.
    """
    threads = count_threads()
    pool = ThreadPoolExecutor(threads, "ahead")
    waiting: deque[Future[_Part[Result]]] = deque()
    supply, pace = _Supply(items), _Pace()
    try:
        while part := supply.draw():
            if not pace.is_hurried():
                while waiting:
                    yield from pace.hand_over(waiting.popleft().result())
                yield from pace.hand_over(_work_on(work, part))
                continue
            waiting.append(pool.submit(_work_on, work, part))
            if len(waiting) > threads:
                yield from pace.hand_over(waiting.popleft().result())
        while waiting:
            yield from waiting.popleft().result().take()
        if supply.error:
            raise supply.error
    finally:
        pool.shutdown(cancel_futures=True)


def decode_ahead(
    items: Iterable[Item],
    read: Callable[[Item], bytes],
    decode: Callable[[bytes], Result],
    faults: tuple[type[Exception], ...] = (ValueError,),
) -> Iterator[tuple[Item, Result | Exception]]:
    """Every item with what is decoded of its bytes, or with the fault of it; as `map_ahead`, which decodes.

    The caller's thread reads: a zip is read by one at a time.
    """

    def read_all() -> Iterator[tuple[Item, bytes | Exception]]:
        for item in items:
            try:
                content: bytes | Exception = read(item)
            except faults as fault:
                content = fault
            yield item, content

    def decode_one(found: tuple[Item, bytes | Exception]) -> tuple[Item, Result | Exception]:
        item, content = found
        if isinstance(content, Exception):
            return item, content
        try:
            return item, decode(content)
        except faults as fault:
            return item, fault

    return map_ahead(decode_one, read_all())


def run_ahead(results: Iterator[Result]) -> Iterator[Result]:
    """The same results, drawn by a thread of its own, a few ahead."""
    queue: Queue[Result | BaseException | None] = Queue(_QUEUED)
    stop = threading.Event()

    def fill() -> None:
        try:
            for result in results:
                if stop.is_set():
                    return
                queue.put(result)
            queue.put(None)
        except BaseException as error:
            queue.put(error)

    thread = threading.Thread(target=fill, name="reader", daemon=True)
    thread.start()
    try:
        while (result := queue.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stop.set()
        while not queue.empty():  # The thread may wait for room; let it see that it should stop.
            queue.get_nowait()


class _Supply(Generic[Item]):
    """The items, a part at a time, up to the one that cannot be drawn."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self.error: Exception | None = None

    def draw(self) -> list[Item]:
        """Empty at the end, and after an error."""
        part: list[Item] = []
        try:
            while self.error is None and len(part) < _PART:
                part.append(next(self._items))
        except StopIteration:
            pass
        except Exception as error:
            self.error = error
        return part


@dataclass(frozen=True)
class _Part(Generic[Result]):
    """The results of some items, up to the one that failed, and the seconds that they took."""

    results: list[Result]
    error: Exception | None
    seconds: float

    def take(self) -> Iterator[Result]:
        yield from self.results
        if self.error:
            raise self.error


def _work_on(work: Callable[[Item], Result], items: list[Item]) -> _Part[Result]:
    results: list[Result] = []
    failed: Exception | None = None
    started_s = time.perf_counter()
    try:
        for item in items:
            results.append(work(item))
    except Exception as error:
        failed = error
    return _Part(results, failed, time.perf_counter() - started_s)


class _Pace:
    """How long a part takes to be made by one thread, and to be taken: moving means."""

    def __init__(self) -> None:
        self.making_s = self.taking_s = 0.0

    def is_hurried(self) -> bool:
        return self.making_s >= self.taking_s

    def hand_over(self, part: _Part[Result]) -> Iterator[Result]:
        started_s = time.perf_counter()
        yield from part.take()
        self.making_s += _NEWS * (part.seconds - self.making_s)
        self.taking_s += _NEWS * (time.perf_counter() - started_s - self.taking_s)
