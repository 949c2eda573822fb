import pytest

from pipeline.wording import milliseconds, percent, rate, times


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0, "0.0 %"),
        (1, "100.0 %"),
        (0.123, "12.3 %"),
        (0.9998, "99.98 %"),
        (0.0004, "0.04 %"),
        (-0.2, "-20.0 %"),
    ],
)
def test_a_share_is_not_rounded_to_none_or_all(share, shown):
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("value_ms", "shown"), [(12.345, "12.35"), (0.5, "0.500"), (0.0056, "0.0056"), (0, "0.000"), (None, "–")]
)
def test_microseconds_keep_two_digits(value_ms, shown):
    assert milliseconds(value_ms) == shown


def test_a_slow_rate_is_not_none():
    assert [rate(value) for value in (0.4, 0.04, 3.6, 1234.5, None)] == ["0.4", "0.04", "4", "1,234", "–"]


def test_a_ratio_is_one_only_where_it_is():
    assert [times(ratio) for ratio in (1, 1.003, 0.9996, 2.5, None)] == [
        "1.00×",
        "1.003×",
        "1.000×",
        "2.50×",
        "–",
    ]
