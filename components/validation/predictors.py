"""What the surrogate is compared with: predictors of losses that need no solver.

A similarity predicts that a dataset does better in the company of datasets like it: minus the mean similarity to the
datasets of the subset, itself included. Only its order means anything, it is no loss.
"""

import numpy as np


def by_similarity(vectors: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Predicted "losses" [K, n] from cosines of the datasets' vectors [n, d]; outside a subset they mean nothing."""
    return -(members @ cosines(vectors)) / members.sum(axis=1, keepdims=True)


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosine of every two rows of ``vectors`` [n, d], [n, n]."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def constant(true: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Each dataset's mean true loss whatever the subset, [K, n]: what estimates without subsets could be at best.

    Its squared error is the least of all constants'. Only real fine-tunes tell it.
    """
    mean = np.where(members, true.mean(axis=1), 0.0).sum(axis=0) / np.maximum(members.sum(axis=0), 1)
    return np.broadcast_to(mean, members.shape).copy()


def shifted(predicted: np.ndarray, true: np.ndarray, members: np.ndarray) -> np.ndarray:
    """``predicted`` with each dataset's mean moved to the truth's, [K, n]: what is left of its error is ranking."""
    return predicted - constant(predicted[:, None], members) + constant(true, members)
