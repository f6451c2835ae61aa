"""Which test rows two methods share."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def common_rows(ours: Mapping[str, Rows], theirs: Mapping[str, Rows]) -> dict[str, tuple[Rows, Rows]]:
    """Where the rows that both sides hold stand in each, dataset by dataset.

    Args:
        ours, theirs: row ids of each dataset, [N] and [M], unique within a dataset.

    Returns:
        For every dataset with at least one common row two index arrays [K]: ``ours[name][first]`` equals
        ``theirs[name][second]``, in ascending order of row id.
    """
    matched = {
        name: np.intersect1d(ours[name], theirs[name], return_indices=True)[1:] for name in ours if name in theirs
    }
    return {name: (first, second) for name, (first, second) in matched.items() if len(first)}
