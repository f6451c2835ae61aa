"""Which rows of a split are looked at when not all are.

The choice follows a hash of each row's id, so it does not depend on the order of rows and hardly changes when rows
are added.
"""

from typing import TYPE_CHECKING

import numpy as np

from components.config import RunConfig

if TYPE_CHECKING:
    from components.prepared import PreparedDataset, SplitName

SHARE = 0.05  # of training's FLOPs that warm start, look-ahead and extraction may take together
LEAST = 200


def sample_rows(row: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions, ascending, of at most ``count`` rows of ``row`` (int64 [N])."""
    with np.errstate(over="ignore"):
        mixed = (row.astype(np.uint64) ^ np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
    return np.sort(np.argsort(mixed, kind="stable")[:count])


def feature_rows(config: RunConfig, train_rows: int) -> int:
    """Rows of each split, training and validation, that a dataset's features are taken of.

    ``auto`` keeps warm start, look-ahead and extraction within 5 % of the FLOPs of training (a row costs about the same
    in all of them), but takes at least 200 rows a split: fewer say too little about a dataset.

    Args:
        train_rows: the dataset's training rows.
    """
    setting, warm = config.gradients.samples_per_dataset, config.warm_start
    if setting != "auto":
        return setting
    spent = (warm.epochs + warm.lookahead_epochs) * min(warm.samples_per_dataset, train_rows)
    allowed = SHARE * config.training.epochs * train_rows - spent
    return max(LEAST, int(allowed / 2))


def feature_index(config: RunConfig, dataset: "PreparedDataset", split: "SplitName") -> np.ndarray:
    """Positions in ``split``, ascending, that features are taken of; logits for boosting are of the same rows."""
    count = feature_rows(config, len(dataset.splits["train"].row))
    return sample_rows(dataset.splits[split].row, count, config.seed)
