"""From a relaxed partition to a partition: cluster the rows of X, then improve ``<T, X>`` by moves and swaps.

Thresholding X at 1/n is not a rounding: at a one-cluster optimum it gives anything from one group to six. The starts
here are hierarchical clusterings of X's rows, cut where there are exactly m clusters, and the same of seeded random
projections of X's square root. Each is improved until no move of one dataset and no swap of two helps.
"""

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage

from components.partition.groups import Groups, from_labels, to_labels

Reassigned = tuple[int, int]
"""A dataset and its new group."""

_LINKAGES = ("ward", "average", "complete")
_WORTH_IT = 1e-10  # smaller gains are rounding errors and could cycle


def affinity_objective(affinity: np.ndarray, groups: Groups) -> float:
    """``<T, X>`` of a partition: the sum over groups of the affinity inside, divided by the group's size."""
    return float(sum(affinity[np.ix_(group, group)].sum() / len(group) for group in groups))


def round_relaxation(affinity: np.ndarray, matrix: np.ndarray, m: int, *, seed: int, draws: int = 8) -> Groups:
    """The best partition into exactly ``m`` groups found from relaxed ``matrix`` [n, n].

    Args:
        affinity: normalised T [n, n].
        matrix: X of a :class:`~components.partition.sdp.Relaxation`.
        m: number of groups, 1..n.
        seed: of the random projections.
        draws: random projections tried, besides three plain clusterings.
    """
    n = len(affinity)
    if m in (1, n):
        return from_labels(np.zeros(n) if m == 1 else np.arange(n))
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    random = np.random.default_rng(seed)
    points = [(matrix, method) for method in _LINKAGES]
    points += [(root @ random.standard_normal((n, m)), "ward") for _ in range(draws)]
    starts = [cut_tree(linkage(rows, method), n_clusters=m)[:, 0] for rows, method in points]
    found = {improve(affinity, from_labels(start)) for start in starts}
    return max(sorted(found), key=lambda groups: round(affinity_objective(affinity, groups), 12))


def improve(affinity: np.ndarray, groups: Groups) -> Groups:
    """Raise ``<T, X>`` by the best move, or swap where no move helps, until none does; the number of groups stays."""
    n = len(affinity)
    inside = np.zeros((n, len(groups)))
    inside[np.arange(n), to_labels(groups, n)] = 1.0
    within = affinity @ inside  # within[i, g] = sum of T[i, j] over j in g
    while True:
        gain, change = _moves(affinity, inside, within)
        if gain <= _WORTH_IT:
            gain, change = _swaps(affinity, inside, within)
        if gain <= _WORTH_IT:
            return from_labels(inside.argmax(axis=1))
        for dataset, group in change:
            inside_before = inside[dataset].copy()
            inside[dataset] = 0.0
            inside[dataset, group] = 1.0
            within += np.outer(affinity[:, dataset], inside[dataset] - inside_before)


def _moves(affinity: np.ndarray, inside: np.ndarray, within: np.ndarray) -> tuple[float, list[Reassigned]]:
    """The largest gain of moving one dataset, and the move."""
    size = inside.sum(axis=0)
    own, total = inside.argmax(axis=1), (within * inside).sum(axis=0)
    index, diagonal = np.arange(len(own)), np.diag(affinity)
    smaller = (total[own] - 2 * within[index, own] + diagonal) / np.maximum(size[own] - 1, 1)
    larger = (total + 2 * within + diagonal[:, None]) / (size + 1)
    gain = larger - total / size + (smaller - total[own] / size[own])[:, None]
    gain[size[own] == 1] = -np.inf  # would empty a group
    gain[index, own] = -np.inf
    dataset, group = np.unravel_index(gain.argmax(), gain.shape)
    return float(gain[dataset, group]), [(int(dataset), int(group))]


def _swaps(affinity: np.ndarray, inside: np.ndarray, within: np.ndarray) -> tuple[float, list[Reassigned]]:
    """The largest gain of two datasets changing places, and the two moves it is."""
    size = inside.sum(axis=0)
    own, diagonal = inside.argmax(axis=1), np.diag(affinity)
    to_own = within[:, own]  # [i, j] = sum of T[i, k] over k in j's group
    stay = np.diag(to_own)[:, None]
    # i leaves its group and j enters it: T changes by -2 within_i + T_ii and +2 (within_j - T_ij) + T_jj
    change = -2 * stay + diagonal[:, None] + 2 * (to_own.T - affinity) + diagonal[None, :]
    change = change / size[own][:, None]
    gain = change + change.T
    gain[own[:, None] == own[None, :]] = -np.inf
    first, second = np.unravel_index(gain.argmax(), gain.shape)
    return float(gain[first, second]), [(int(first), int(own[second])), (int(second), int(own[first]))]
