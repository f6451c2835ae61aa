"""Which rows of a split are looked at when not all are.

The choice follows a hash of each row's id, so it does not depend on the order of rows and hardly changes when rows
are added.
"""

import numpy as np


def sample_rows(row: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions, ascending, of at most ``count`` rows of ``row`` (int64 [N])."""
    with np.errstate(over="ignore"):
        mixed = (row.astype(np.uint64) ^ np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
    return np.sort(np.argsort(mixed, kind="stable")[:count])


def feature_rows(setting: int | str, train_rows: int, epochs: int, warm_rows: int) -> int:
    """Rows a split that features are taken of.

    ``auto`` keeps warm start and extraction within 5 % of the FLOPs of training (a pass costs the same in all three),
    but takes at least 200 rows: fewer say too little about a dataset.
    """
    if setting != "auto":
        return int(setting)
    return max(200, int(0.05 * epochs * train_rows) - warm_rows)
