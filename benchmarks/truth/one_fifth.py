"""First-order errors at a relative distance of 0.2 %, where the papers tell of them."""

from collections.abc import Sequence

from benchmarks.truth.markdown import Found
from components.validation.verdict import ONE_FIFTH_PERCENT


def one_fifth(subset: Found) -> Found:
    """The errors at 0.2 % along the solution for a subset, of those that the step `linearity` found."""
    return next(error for error in subset["errors"] if error["distance"] == ONE_FIFTH_PERCENT)


def together(subsets: Sequence[Found]) -> float:
    """The unprojected relative error at 0.2 % along the solution for all datasets together.

    Every run has that subset beside its own groups, and so it alone compares runs.
    """
    every = max(subsets, key=lambda subset: len(subset["datasets"]))
    return float(one_fifth(every)["unprojected"]["relative"])
