"""The affinity matrix: how well one dataset does when it is trained together with another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.errors import UserError

# A dataset whose estimates differ by less than this share of their mean does not react to its company; what is left
# is the solver's last digits (about 1e-4 nats), and standardising them would turn noise into affinities.
UNMOVED = 1e-4


@dataclass(frozen=True)
class Affinity:
    """Who helps whom.

    Attributes:
        matrix: ``T[i, j]``, float64 [n, n], in standard deviations of dataset i's estimated loss; positive: i does
            better than in its average subset when j is there. Not symmetric.
        standard_errors: of each entry, float64 [n, n].
    """

    matrix: np.ndarray
    standard_errors: np.ndarray


def affinity(members: np.ndarray, loss: np.ndarray, names: Sequence[str]) -> Affinity:
    """``T[i, j]`` = mean, over the subsets that hold i and j, of dataset i's negated and standardised loss.

    A dataset's loss is standardised (mean 0, standard deviation 1) over all subsets that hold it, so that a dataset
    with large losses does not drown the others. It follows that ``T[i, i]``, the mean over all of them, is 0, and that
    the row of a dataset whose loss never changes is 0 throughout.

    The standard error is the standard deviation over the pair's subsets by the square root of their number. A pair in
    a single subset has no spread of its own: the dataset's, which is 1, takes its place. After an exhaustive
    enumeration nothing was sampled; then it says how much T depends on the rest of the subset.

    Args:
        members: bool [K, n].
        loss: estimated loss of each dataset in each subset, float64 [K, n]; not looked at outside the subset.
        names: of the datasets.

    Raises:
        ValueError: a loss inside a subset is not finite.
        UserError: a pair of datasets is in no subset (all such pairs are named).
    """
    if not np.isfinite(loss[members]).all():
        raise ValueError("a dataset's loss is not finite in a subset that holds it")
    held = members.astype(np.float64)
    together = held.T @ held
    _check_pairs(together, names)
    score = _standardised(members, loss)
    matrix = score.T @ held / together
    spread = np.maximum((score**2).T @ held / together - matrix**2, 0)
    # A sample of c subsets underestimates the variance by (c - 1) / c.
    variance = np.where(together > 1, spread / np.maximum(together - 1, 1), (score != 0).any(axis=0)[:, None])
    np.fill_diagonal(matrix, 0.0)  # exactly, not up to rounding
    return Affinity(matrix, np.sqrt(variance))


def _standardised(members: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Negated loss with mean 0 and deviation 1 over each dataset's subsets; 0 outside them. float64 [K, n]."""
    score = np.zeros(loss.shape)
    for i in range(loss.shape[1]):
        own = loss[members[:, i], i]
        if own.std() > UNMOVED * abs(own.mean()):
            score[members[:, i], i] = (own.mean() - own) / own.std()
    return score


def _check_pairs(together: np.ndarray, names: Sequence[str]) -> None:
    missing = np.argwhere(np.triu(together == 0))
    if len(missing):
        raise UserError(
            "some datasets are in no estimated subset together, so nothing is known of their affinity",
            remedy="raise surrogate.pair_coverage or surrogate.subsets",
            problems=tuple(names[i] if i == j else f"{names[i]} and {names[j]}" for i, j in missing),
        )
