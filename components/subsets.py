"""Which subsets of the datasets are estimated.

Few datasets: all of them, which is the exact answer and still seconds. Many: subsets of one size in which all pairs
are seen about equally often, because an affinity is a mean over the subsets that hold a pair; a uniform sample leaves
some pairs out and sees others three times as often.
"""

import logging
from math import comb

import numpy as np

from components.errors import UserError

log = logging.getLogger(__name__)


def choose_subsets(
    n: int, count: int, size_share: float, pair_coverage: int, exhaustive_up_to: int, seed: int
) -> np.ndarray:
    """Choose the subsets to estimate, bool [K, n], no subset twice, the same for the same arguments.

    Up to ``exhaustive_up_to`` datasets: all ``2^n - 1``. Beyond: ``count`` sampled subsets, then the n single
    datasets, then all together, K = count + n + 1. ``count`` grows where the pairs need more, and shrinks where fewer
    subsets of the size exist; both are logged.

    Args:
        n: datasets.
        count: sampled subsets.
        size_share: share of the datasets in a sampled subset (at least two datasets).
        pair_coverage: every pair is in at least so many sampled subsets.
        exhaustive_up_to: see above.
        seed: of the sample.

    Raises:
        UserError: there are too few subsets of the size for the coverage.
    """
    if n <= exhaustive_up_to:
        return (np.arange(1, 2**n)[:, None] >> np.arange(n) & 1).astype(bool)
    size = subset_size(n, size_share)
    possible = comb(n - 2, size - 2)
    if possible < pair_coverage:
        raise UserError(
            f"a pair of {n} datasets is in only {possible} subsets of {size}, "
            f"but surrogate.pair_coverage asks for {pair_coverage}",
            remedy="change surrogate.subset_size, or lower surrogate.pair_coverage",
        )
    sampled = balanced_subsets(n, size, count, pair_coverage, np.random.default_rng(seed))
    if len(sampled) > count:
        log.warning(
            "estimating %d subsets, not surrogate.subsets = %d: every pair of %d datasets %d times takes so many of %d",
            *(len(sampled), count, n, pair_coverage, size),
        )
    elif len(sampled) < count:
        log.warning("estimating %d subsets instead of %d: no more subsets of %d exist", len(sampled), count, size)
    return np.concatenate([sampled, np.eye(n, dtype=bool), np.ones((1, n), dtype=bool)])


def subset_size(n: int, share: float) -> int:
    """Datasets in a sampled subset: a share of ``n``, at least two where there are two."""
    return min(n, max(2, round(share * n)))


def balanced_subsets(n: int, size: int, count: int, pair_coverage: int, rng: np.random.Generator) -> np.ndarray:
    """At least ``count`` distinct subsets of ``size >= 2`` datasets, each around a least-covered pair, bool [K, n].

    Fewer only where no more exist; more where each pair is to be in ``pair_coverage`` of them.
    """
    coverage = np.zeros((n, n), np.int64)
    first, second = np.triu_indices(n, k=1)
    exist = comb(n, size)
    chosen: dict[bytes, np.ndarray] = {}
    while len(chosen) < exist and (len(chosen) < count or coverage[first, second].min() < pair_coverage):
        times = coverage[first, second]
        at = rng.choice(np.flatnonzero(times == times.min()))
        pair = np.array([first[at], second[at]])
        subset = _balanced(pair, size, coverage, rng)
        # While any subset is left, this pair has one left too (all pairs are in equally many), so the search ends.
        while subset.tobytes() in chosen:
            subset = _with_any_others(pair, size, n, rng)
        chosen[subset.tobytes()] = subset
        coverage += np.outer(subset, subset)
    return np.array(list(chosen.values()))


def _balanced(pair: np.ndarray, size: int, coverage: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grow the pair by the datasets least often seen with those already in; ties by chance. bool [n]."""
    subset = np.zeros(len(coverage), bool)
    subset[pair] = True
    seen = coverage[pair].sum(0) + rng.random(len(coverage))
    for _ in range(size - 2):
        at = np.where(subset, np.inf, seen).argmin()
        subset[at] = True
        seen += coverage[at]
    return subset


def _with_any_others(pair: np.ndarray, size: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """The pair and random others, bool [n]."""
    subset = np.zeros(n, bool)
    subset[pair] = True
    subset[rng.choice(np.flatnonzero(~subset), size - 2, replace=False)] = True
    return subset
