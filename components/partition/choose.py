"""Which number of groups, and whether a difference between partitions is one.

More groups almost always look better and cost an adapter each. So m is the smallest whose loss lies within one standard
error *of the paired difference* of the best: both partitions see the same resampled rows, and what is hard about a row
cancels. The rows that chose lambda, subset and m flatter the winner; :func:`cross_fitted_gain` measures on rows that
chose nothing.

Losses come as :data:`~components.partition.losses.PartitionRows`: a list over datasets of row losses [M_i] in units of
the entropy. A partition's loss is the mean over datasets of the mean over rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.partition.losses import PartitionRows


@dataclass(frozen=True)
class Comparison:
    """Partitions on the same rows: ``loss`` [P], and under B resamples of the rows ``resampled`` [P, B]."""

    loss: np.ndarray
    resampled: np.ndarray

    def standard_error(self, reference: int) -> np.ndarray:
        """Standard error [P] of the paired difference to partition ``reference`` (0 for itself)."""
        return np.asarray((self.resampled - self.resampled[reference]).std(axis=1))

    def smallest_within_one(self) -> int:
        """The first partition that is not worse than the best by more than one standard error.

        Partitions are expected in ascending number of groups.
        """
        best = int(self.loss.argmin())
        return int(np.argmax(self.loss - self.loss[best] <= self.standard_error(best) + 1e-12))


def compare(partitions: Sequence[PartitionRows], *, resamples: int, seed: int) -> Comparison:
    """Losses of ``partitions``, and the same under ``resamples`` bootstrap draws of rows within each dataset."""
    counts = resample_counts([len(losses) for losses in partitions[0]], resamples, seed)
    loss = np.array([np.mean([losses.mean() for losses in rows]) for rows in partitions])
    resampled = np.stack(
        [
            np.mean([drawn @ losses / len(losses) for drawn, losses in zip(counts, rows, strict=True)], axis=0)
            for rows in partitions
        ]
    )
    return Comparison(loss, resampled)


def resample_counts(sizes: Sequence[int], resamples: int, seed: int) -> list[np.ndarray]:
    """For each dataset of M_i rows how often each row is drawn in each bootstrap resample, float64 [resamples, M_i]."""
    return [
        np.random.default_rng([seed, i]).multinomial(size, np.full(size, 1.0 / size), size=resamples).astype(np.float64)
        for i, size in enumerate(sizes)
    ]


def cross_fitted_gain(chosen: Sequence[PartitionRows], other: Sequence[PartitionRows]) -> tuple[float, float]:
    """How much lower the chosen partition's loss is than another's, one group's say, and the standard error of that.

    The error is that of the mean over rows, given the two choices: rows within a dataset are independent, and the two
    measurements share none.

    Args:
        chosen: two entries, one a half: losses of *its* rows under the partition and lambda chosen on the other half.
        other: the same rows under the other partition, lambda chosen on the other half.
    """
    means, variances = [], []
    for chosen_rows, other_rows in zip(chosen, other, strict=True):
        differences = [b - a for a, b in zip(chosen_rows, other_rows, strict=True)]
        n = len(differences)
        means.append(np.mean([d.mean() for d in differences]))
        variances.append(sum(d.var(ddof=1) / len(d) if len(d) > 1 else 0.0 for d in differences) / n**2)
    return float(np.mean(means)), float(np.sqrt(np.sum(variances)) / len(means))
