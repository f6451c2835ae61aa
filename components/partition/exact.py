"""The best partition into each number of groups, exactly, when the cost of every subset is known.

Dynamic programming over subsets: the best partition of a set into m groups is a group with the set's first member, and
the best partition of what remains into m - 1. Remainders never contain dataset 0, so half of the subsets suffice: about
3^(n-1) / 2 steps, each a numpy operation over all m and over a batch of cost tables (bootstrap resamples) at once.
The price is exponential memory and time: 14 datasets (800,000 steps) are the limit; beyond, ``search.py``.
"""

import numpy as np

from components.partition.groups import Groups

MOST_DATASETS = 14


def best_partitions(cost: np.ndarray) -> list[tuple[float, Groups]]:
    """The cheapest partition into m = 1..n groups.

    Args:
        cost: float [2**n]; ``cost[mask]`` is what the group with members ``{i: mask >> i & 1}`` costs; ``cost[0]`` is
            not read. A partition costs the sum over its groups.

    Returns:
        For m = 1..n the total cost and the groups. Of equal partitions the same one is found every time.

    Raises:
        ValueError: the length is not 2**n with 1 <= n <= 14, or a cost is not finite.
    """
    n = _datasets(cost[None])
    total, groups = _solve(cost[None], n)
    return [(float(total[m, 0]), groups[m][0]) for m in range(n)]


def best_groups(costs: np.ndarray, m: int) -> list[Groups]:
    """The cheapest partition into ``m`` groups under each of B cost tables, float [B, 2**n].

    Raises:
        ValueError: as :func:`best_partitions`, or ``m`` is not in 1..n.
    """
    n = _datasets(costs)
    if not 1 <= m <= n:
        raise ValueError(f"{n} datasets have no partition into {m} groups")
    at_once = max(1, 2**18 // costs.shape[1])  # keeps the working set within some 100 MB
    found: list[Groups] = []
    for begin in range(0, len(costs), at_once):
        found += _solve(costs[begin : begin + at_once], m)[1][m - 1]
    return found


def bit_masks(members: np.ndarray) -> np.ndarray:
    """Index into a cost table of each subset in ``members``, bool [K, n] -> int64 [K]."""
    return members.astype(np.int64) @ (1 << np.arange(members.shape[1], dtype=np.int64))


def _datasets(costs: np.ndarray) -> int:
    n = int(costs.shape[1]).bit_length() - 1
    if costs.shape[1] != 2**n or not 1 <= n <= MOST_DATASETS:
        raise ValueError(f"a cost table has 2**n entries with 1 <= n <= {MOST_DATASETS}, not {costs.shape[1]}")
    if not np.isfinite(costs[:, 1:]).all():
        raise ValueError("every subset needs a finite cost")
    return n


def _solve(costs: np.ndarray, most: int) -> tuple[np.ndarray, list[list[Groups]]]:
    """Totals [most, B] and, for each m up to ``most``, the groups under each cost table."""
    full = costs.shape[1] - 1
    by_mask = np.ascontiguousarray(costs.T, dtype=np.float64)
    # Row mask >> 1 holds an even mask (a remainder); the last row, number 2**(n-1), the full set.
    best = np.full((by_mask.shape[0] // 2 + 1, most + 1, by_mask.shape[1]), np.inf)
    chosen = np.zeros(best.shape, dtype=np.int64)
    best[0, 0] = 0.0
    for mask in [*range(2, full, 2), full]:
        first_groups = _with_first_member(mask)
        totals = by_mask[first_groups][:, None] + best[(mask ^ first_groups) >> 1, :-1]
        pick = totals.argmin(axis=0)
        row = mask + 1 >> 1
        best[row, 1:] = np.take_along_axis(totals, pick[None], axis=0)[0]
        chosen[row, 1:] = first_groups[pick]
    batch = range(len(costs))
    return best[-1, 1:], [[_trace(chosen[..., b], full, m) for b in batch] for m in range(1, most + 1)]


def _with_first_member(mask: int) -> np.ndarray:
    """The subsets of ``mask`` that contain its lowest bit, ascending."""
    subsets = np.array([mask & -mask])
    for bit in range(mask.bit_length()):
        if (mask & (mask - 1)) >> bit & 1:
            subsets = np.concatenate([subsets, subsets | 1 << bit])
    return subsets


def _trace(chosen: np.ndarray, full: int, m: int) -> Groups:
    groups, mask = [], full
    for left in range(m, 0, -1):
        group = int(chosen[mask + 1 >> 1, left])
        groups.append(tuple(i for i in range(full.bit_length()) if group >> i & 1))
        mask ^= group
    return tuple(groups)
