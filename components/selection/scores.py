"""Random-subset scores: how much a dataset's presence lowers the target's loss, averaged over random company.

Where a forward order asks what to add next, a score asks what a dataset does on average, whatever else is there: the
mean estimated loss of random subsets without it minus that of those with it (an estimate of its Banzhaf value; GradEx's
random-ensemble score up to a constant). Subsets come in pairs, one with exactly the datasets that the other lacks, so
that every dataset is in half of them.
"""

from collections.abc import Sequence

import numpy as np

from components.estimator import GroupEstimator
from components.selection.forward import Effect, paired


def random_scores(
    estimator: GroupEstimator, target: int, names: Sequence[str], *, subsets: int, seed: int
) -> dict[str, Effect]:
    """Each other dataset's score for the target with its standard error over pairs of subsets.

    Args:
        subsets: how many, rounded up to an even number; at least four.
        seed: of the draw.
    """
    members = paired_subsets(len(names), target, max(2, -(-subsets // 2)), np.random.default_rng(seed))
    loss = estimator.solve(members).loss[0][:, target]
    return {name: _score(loss, members[:, i]) for i, name in enumerate(names) if i != target}


def paired_subsets(n: int, target: int, pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Random subsets that hold ``target``, each followed by the one with just the others, bool [2 pairs, n]."""
    drawn = rng.random((pairs, n)) < 0.5
    members = np.stack([drawn, ~drawn], axis=1).reshape(2 * pairs, n)
    members[:, target] = True
    return members


def _score(loss: np.ndarray, inside: np.ndarray) -> Effect:
    """From losses of paired subsets: two of a pair are not independent, so that a pair is one observation."""
    first, second = loss.reshape(-1, 2).T
    return paired(np.where(inside[::2], second - first, first - second))
