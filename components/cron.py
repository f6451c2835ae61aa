"""Cron expressions as Kubeflow Pipelines reads them.

Its scheduler takes six fields, seconds first, and the grammar of github.com/robfig/cron v1; what it cannot read it
finds out long after a schedule was accepted, and then nothing runs. Five fields, which everyone else writes, are taken
with second 0.
"""

import re

MONTHS = dict(zip("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), range(1, 13), strict=True))
DAYS = dict(zip("SUN MON TUE WED THU FRI SAT".split(), range(7), strict=True))
LONGEST = dict(zip(range(1, 13), (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))

# name, lowest, highest, names of values
FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 6, DAYS),
)
PART = re.compile(r"(?P<low>[*?]|\w+)(?:-(?P<high>\w+))?(?:/(?P<step>\d+))?")


def six_fields(expression: str) -> str:
    """The expression with six fields, single spaces between them."""
    fields = expression.split()
    return " ".join(["0", *fields] if len(fields) == 5 else fields)


def problem(expression: str) -> str:
    """What is wrong with an expression of five or six fields; '' where nothing is."""
    fields = six_fields(expression).split()
    if len(fields) != len(FIELDS):
        return f"{expression!r} has {len(fields)} fields; write five, as in '0 3 * * SUN', or six with seconds first"
    times: dict[str, set[int]] = {}
    for text, (name, lowest, highest, names) in zip(fields, FIELDS, strict=True):
        times[name] = set()
        for part in text.split(","):
            found = _values(part, lowest, highest, names)
            if isinstance(found, str):
                return f"{expression!r}: {name} {part!r} {found}"
            times[name] |= set(found)
    if fields[5] in ("*", "?") and min(times["day of month"]) > max(LONGEST[month] for month in times["month"]):
        return f"{expression!r}: no such day is in the month"
    return ""


def _values(part: str, lowest: int, highest: int, names: dict[str, int]) -> range | str:
    """The values that one part of a field stands for, or what is wrong with it."""
    match = PART.fullmatch(part)
    if match is None:
        return "is neither *, a value, a range a-b, nor one of these with /step"
    every = match["low"] in ("*", "?")
    if every and match["high"]:
        return "mixes * with a range"
    bounds = [match["low"], match["high"] or match["low"]]
    low, high = (lowest, highest) if every else (_number(bound, names) for bound in bounds)
    if match["step"] and not match["high"]:
        high = highest  # 5/15: from 5 on, every 15
    step = int(match["step"] or 1)
    if low < lowest or high > highest:
        known = f" or {'-'.join((next(iter(names)), list(names)[-1]))}" if names else ""
        return f"is not within {lowest}-{highest}{known}"
    if low > high:
        return "ends before it begins"
    return range(low, high + 1, step) if step else "has a step of 0"


def _number(text: str, names: dict[str, int]) -> int:
    return int(text) if text.isdecimal() else names.get(text.upper(), -1)
