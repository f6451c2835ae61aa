"""Cron expressions: what the cluster's scheduler would take, and what it would choke on in silence."""

import pytest

from components.cron import problem, six_fields


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("0 3 * * SUN", "0 0 3 * * SUN"),
        ("  30   4 1,15 * 5 ", "0 30 4 1,15 * 5"),
        ("*/30 0 3 * * SUN", "*/30 0 3 * * SUN"),
        ("0 0 3 ? * MON-FRI", "0 0 3 ? * MON-FRI"),
    ],
)
def test_five_fields_become_six(given: str, sent: str) -> None:
    assert problem(given) == ""
    assert six_fields(given) == sent


@pytest.mark.parametrize(
    "good",
    ["0 0 * * *", "*/15 * * * *", "5/20 * * * *", "0 9-17/2 * * mon-FRI", "0 0 31 1,3 *", "0 0 29 2 *", "0 0 31 2 SUN"],
)
def test_the_schedulers_grammar_is_taken(good: str) -> None:
    assert problem(good) == ""


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("", "has 0 fields"),
        ("0 3 * *", "has 4 fields"),
        ("0 0 3 * * SUN 2027", "has 7 fields"),
        ("@weekly", "has 1 fields"),
        ("60 3 * * *", "minute '60' is not within 0-59"),
        ("0 24 * * *", "hour '24' is not within 0-23"),
        ("0 3 0 * *", "day of month '0' is not within 1-31"),
        ("0 3 * 13 *", "month '13' is not within 1-12 or JAN-DEC"),
        ("0 3 * * 7", "day of week '7' is not within 0-6 or SUN-SAT"),
        ("0 3 * * SUNDAY", "day of week 'SUNDAY' is not within 0-6"),
        ("0 3 * * FRI-MON", "day of week 'FRI-MON' ends before it begins"),
        ("*/0 * * * *", "minute '*/0' has a step of 0"),
        ("*-5 * * * *", "minute '*-5' mixes * with a range"),
        ("0 3 L * *", "day of month 'L' is not within 1-31"),
        ("0 3 * * 5#2", "day of week '5#2' is neither"),
        ("0, 3 * * *", "minute '' is neither"),
        ("-1 3 * * *", "minute '-1' is neither"),
        ("0 0 30 2 *", "no such day is in the month"),
        ("0 0 31 APR,JUN *", "no such day is in the month"),
    ],
)
def test_what_would_never_run_is_told(bad: str, says: str) -> None:
    assert says in problem(bad)
