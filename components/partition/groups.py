"""Groups of datasets by number, and the forms they travel in.

A group is an ascending tuple of dataset numbers, a partition a tuple of groups ordered by their first member. That form
is canonical: two partitions are the same if and only if they are equal.
"""

from collections.abc import Iterable, Sequence

import numpy as np

Group = tuple[int, ...]
Groups = tuple[Group, ...]


def canonical(groups: Iterable[Iterable[int]]) -> Groups:
    """The partition with members ascending and groups ordered by first member; empty groups vanish."""
    return tuple(sorted(tuple(sorted(int(i) for i in group)) for group in groups if group))


def from_labels(labels: np.ndarray) -> Groups:
    """The partition in which datasets with the same label [n] share a group."""
    return canonical(np.flatnonzero(labels == label).tolist() for label in np.unique(labels))


def to_labels(groups: Groups, n: int) -> np.ndarray:
    """Group number of each of the ``n`` datasets, int64 [n]."""
    labels = np.full(n, -1, dtype=np.int64)
    for number, group in enumerate(groups):
        labels[list(group)] = number
    return labels


def to_members(groups: Sequence[Group], n: int) -> np.ndarray:
    """Membership of ``n`` datasets in each group, bool [len(groups), n]."""
    members = np.zeros((len(groups), n), dtype=bool)
    for row, group in zip(members, groups, strict=True):
        row[list(group)] = True
    return members


def one_group(n: int) -> Groups:
    """Every dataset in one group."""
    return (tuple(range(n)),)


def one_each(n: int) -> Groups:
    """Every dataset in a group of its own."""
    return tuple((i,) for i in range(n))
