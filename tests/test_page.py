"""How pages write numbers."""

import pytest

from components import page


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (page.percent(0.7312), "73.1"),
        (page.percent(None), page.ABSENT),
        (page.points(0.0124), "+1.2"),
        (page.points(-0.0124), "\N{MINUS SIGN}1.2"),
        (page.number(float("nan")), page.ABSENT),
        (page.number(-0.12345, 4), "\N{MINUS SIGN}0.1235"),
        (page.duration(0.84), "0.8 s"),
        (page.duration(59.7), "1 min 00 s"),
        (page.duration(410), "6 min 50 s"),
        (page.duration(3599.6), "1 h 00 min"),
        (page.size(9.81e9), "9.8 GB"),
        (page.size(6.1e8), "610 MB"),
        (page.size(0), page.ABSENT),
        (page.flops(8.62e16), "86.2 PFLOP"),
        (page.flops(12), "12 FLOP"),
        (page.p_value(0.0009), "p < 0.001"),
        (page.p_value(0.0314), "p = 0.031"),
    ],
)
def test_numbers_for_people(made: str, expected: str) -> None:
    assert made == expected
