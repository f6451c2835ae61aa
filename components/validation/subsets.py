"""Which subsets are fine-tuned for real: random ones of equal size, pairs, and the groups of several partitions.

The random subsets answer whether estimates rank subsets: they are of one size, so that no predictor can win by
counting. Pairs and groups add to what is known of each dataset. The partitions answer whether the chosen one is worth
its groups: against one group, a group each, random partitions of the same shape, and spectral clustering of the same
matrix. A subset that has several parts to play is fine-tuned once.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import SpectralClustering

from components.subsets import balanced_subsets, subset_size

CHOSEN, ONE, EACH, SPECTRAL, RANDOM = "chosen", "one", "each", "spectral", "random"
Groups = list[list[str]]


@dataclass(frozen=True)
class Sample:
    """What is fine-tuned.

    Attributes:
        random, pairs: subsets, each a list of names in the order of the datasets.
        partitions: name -> groups: ``chosen``, ``one``, ``each``, ``spectral`` where there are groups to look for, and
            ``random-0``, ``random-1``...
    """

    random: Groups
    pairs: Groups
    partitions: dict[str, Groups]

    def jobs(self) -> dict[str, list[str]]:
        """Every subset once, by the name of its job."""
        groups = [group for partition in self.partitions.values() for group in partition]
        distinct = dict.fromkeys(tuple(subset) for subset in (*self.random, *self.pairs, *groups))
        return {f"subset-{k:03d}": list(subset) for k, subset in enumerate(distinct)}


def choose_sample(
    names: list[str],
    groups: Groups,
    affinity: np.ndarray,
    *,
    size_share: float,
    subsets: int,
    pairs: int,
    partitions: int,
    seed: int,
) -> Sample:
    """The subsets to fine-tune; the same for the same arguments, and fewer are a part of more.

    Args:
        names: n datasets, at least two.
        groups: the chosen partition.
        affinity: T [n, n], larger is better.
        size_share: share of the datasets in a random subset.
        subsets, pairs, partitions: how many random ones; fewer where no more exist.
        seed: of the sample.
    """
    n = len(names)
    size = subset_size(n, size_share)
    random = balanced_subsets(n, size, subsets, 0, np.random.default_rng([seed, 0]))
    twos = balanced_subsets(n, 2, pairs, 0, np.random.default_rng([seed, 1]))
    chosen = _sorted(groups, names)
    found = {CHOSEN: chosen, ONE: [list(names)], EACH: [[name] for name in names]}
    if 1 < len(groups) < n:
        found[SPECTRAL] = spectral_groups(names, affinity, len(groups), seed)
        shuffled = random_partitions(chosen, names, partitions, np.random.default_rng([seed, 2]))
        found |= {f"{RANDOM}-{k}": partition for k, partition in enumerate(shuffled)}
    return Sample(_named(random, names), _named(twos, names), found)


def random_partitions(groups: Groups, names: list[str], count: int, rng: np.random.Generator) -> list[Groups]:
    """Up to ``count`` distinct partitions with groups as large as ``groups``' and not the same."""
    seen, found = [groups], list[Groups]()
    for _ in range(50 * count):
        if len(found) == count:
            break
        left = iter([names[i] for i in rng.permutation(len(names))])
        partition = _sorted([[next(left) for _ in group] for group in groups], names)
        if partition not in seen:
            seen.append(partition)
            found.append(partition)
    return found


def spectral_groups(names: list[str], affinity: np.ndarray, m: int, seed: int) -> Groups:
    """Spectral clustering of the symmetrised affinity, shifted so that the least is 0, into ``m`` groups."""
    symmetric = (affinity + affinity.T) / 2
    np.fill_diagonal(symmetric, symmetric.max())
    clustering = SpectralClustering(m, affinity="precomputed", random_state=seed, assign_labels="cluster_qr")
    labels = clustering.fit_predict(symmetric - symmetric.min())
    clusters = [[name for name, label in zip(names, labels, strict=True) if label == k] for k in range(m)]
    return _sorted([cluster for cluster in clusters if cluster], names)


def _named(members: np.ndarray, names: list[str]) -> Groups:
    return [[name for name, held in zip(names, row, strict=True) if held] for row in members]


def _sorted(groups: Groups, names: list[str]) -> Groups:
    """Members in the order of the datasets, groups by their first member."""
    place = {name: i for i, name in enumerate(names)}
    return sorted((sorted(group, key=place.__getitem__) for group in groups), key=lambda group: place[group[0]])
