"""How benchmarks measure and what they leave: ratios within one run, both sides alternating, medians.

A benchmark is a module with a function ``rows() -> list[Row]``.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Bound = Literal["at most", "at least"]


@dataclass(frozen=True)
class Row:
    """One measured fact.

    Attributes:
        value, baseline: of ours and of what it is compared with, in ``unit``; no baseline: an absolute target.
        ratio: of the two: value / baseline, or times faster (baseline / value), or how far apart, as the row's name has
            it; the value itself, or its share of a whole, where that is what is bounded.
        target: the bound on ``ratio``; None where the row only reports.
        bound: whether the ratio has to be at most or at least the target.
    """

    name: str
    value: float
    baseline: float | None
    ratio: float
    target: float | None
    bound: Bound = "at most"
    unit: str = "s"
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return bool(self.ratio <= self.target if self.bound == "at most" else self.ratio >= self.target)


def alternate(*sides: Callable[[], Any], repeats: int = 5) -> tuple[float, ...]:
    """Median seconds of each side; the sides take turns, so that what disturbs one disturbs all."""
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for seconds, side in zip(taken, sides, strict=True):
            begin = time.perf_counter()
            side()
            seconds.append(time.perf_counter() - begin)
    return tuple(statistics.median(seconds) for seconds in taken)
