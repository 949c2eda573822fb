import itertools
import threading
import time

import pytest

from pipeline import ahead
from pipeline.ahead import decode_ahead, map_ahead, run_ahead

COUNT = 100


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(ahead, "count_cores", lambda: 3)


def test_results_come_in_the_order_of_the_items():
    def work(number):
        time.sleep(0.01 * (number < ahead._PART))  # The first part is done after others.
        return 2 * number

    assert list(map_ahead(work, range(COUNT))) == [2 * number for number in range(COUNT)]


def test_parts_are_worked_on_at_the_same_time():
    together = threading.Barrier(3, timeout=10)

    def work(number):
        if number in (0, ahead._PART, 2 * ahead._PART):
            together.wait()  # Breaks unless three threads come to it.
        return number

    assert list(map_ahead(work, range(COUNT))) == list(range(COUNT))


def test_an_error_comes_after_the_results_before_it():
    def work(number):
        if number == 20:  # In the middle of a part.
            raise ValueError("twenty")
        return number

    found = []
    with pytest.raises(ValueError, match="twenty"):
        for result in map_ahead(work, range(COUNT)):
            found.append(result)
    assert found == list(range(20))


@pytest.mark.parametrize("takes_s", [0.0, 0.002])  # By other threads, and in the end by the caller's own.
def test_an_error_of_the_items_comes_after_the_results_before_it(takes_s):
    def items():
        yield from range(COUNT - 2)  # In the middle of a part.
        raise ValueError("no more")

    found = []
    with pytest.raises(ValueError, match="no more"):
        for result in map_ahead(lambda number: 2 * number, items()):
            found.append(result)
            time.sleep(takes_s)
    assert found == [2 * number for number in range(COUNT - 2)]


def test_nothing_is_drawn_after_an_error_of_the_items():
    class Failing:
        def __init__(self):
            self.drawn = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.drawn += 1
            if self.drawn == 3:
                raise ValueError("third")
            return self.drawn

    failing, found = Failing(), []
    with pytest.raises(ValueError, match="third"):
        for result in map_ahead(lambda number: number, failing):
            found.append(result)
    assert (found, failing.drawn) == ([1, 2], 3)


def test_no_more_items_are_drawn_than_the_threads_have_use_for():
    drawn = itertools.count()
    next(map_ahead(lambda number: number, drawn))
    assert next(drawn) <= 4 * ahead._PART


def test_who_stops_taking_results_leaves_no_thread_at_work():
    results = run_ahead(map_ahead(lambda number: number, itertools.count()))
    assert next(results) == 0
    results.close()
    deadline_s = time.monotonic() + 10
    while names := {t.name for t in threading.enumerate() if t.name.startswith(("ahead", "reader"))}:
        assert time.monotonic() < deadline_s, names
        time.sleep(0.01)


def test_a_fault_stands_beside_its_item_and_what_comes_after_it_is_decoded():
    def read(name):
        if name == "b":
            raise OSError("unreadable")
        return name.encode()

    def decode(content):
        if content == b"c":
            raise ValueError("broken")
        return content.upper()

    found = dict(decode_ahead("abcd", read, decode, (OSError, ValueError)))
    assert (found["a"], found["d"]) == (b"A", b"D")
    assert {name: str(found[name]) for name in "bc"} == {"b": "unreadable", "c": "broken"}


def test_what_is_no_fault_is_raised():
    def read(_name):
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        list(decode_ahead("a", read, bytes.upper))


def test_all_bytes_are_read_in_the_callers_thread():
    def read(_name):
        return threading.current_thread().name.encode()

    assert {found for _, found in decode_ahead("abcd", read, bytes)} == {
        threading.current_thread().name.encode()
    }


def test_who_takes_results_slowly_is_left_alone_by_other_threads():
    """Decoding beside a forward pass that keeps all cores busy."""
    found = []
    for name in map_ahead(lambda _: threading.current_thread().name, range(COUNT)):
        found.append(name)
        time.sleep(0.002)
    assert found[-1] == threading.current_thread().name
    assert found[0] != found[-1]  # Nothing was known of the pace.


def test_who_waits_for_results_has_all_threads_at_work():
    def work(_number):
        time.sleep(0.002)
        return threading.current_thread().name

    names = set(map_ahead(work, range(COUNT)))
    assert len(names) == 3
    assert threading.current_thread().name not in names
