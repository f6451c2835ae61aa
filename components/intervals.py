"""A number with its percentile bootstrap interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and its percentile bootstrap interval at ``LEVEL``."""

    value: float
    low: float
    high: float


def interval(point: float, draws: NDArray[np.float64]) -> Interval:
    """Percentile interval at ``LEVEL`` around ``point`` from bootstrap ``draws``."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(point, float(low), float(high))
