"""How stable the best partition is: which datasets stay together when the validation rows are drawn again."""

import numpy as np

from components.partition.choose import resample_counts
from components.partition.exact import best_groups
from components.partition.groups import to_labels
from components.partition.losses import Losses


def co_membership(losses: Losses, m: int, *, resamples: int, seed: int) -> np.ndarray:
    """Share of bootstrap resamples in which two datasets are in one group of the best partition into ``m``, [n, n].

    Every resample gives a new table of losses of all subsets (lambda as chosen on all rows), and that table its exact
    optimum. The subsets must all have been estimated.
    """
    counts = resample_counts([len(half) for half in losses.second_half], resamples, seed)
    found = best_groups(losses.resampled_table(counts), m)
    labels = np.stack([to_labels(groups, losses.n) for groups in found])
    return np.asarray((labels[:, :, None] == labels[:, None, :]).mean(axis=0))
