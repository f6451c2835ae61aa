"""Local search against the exact optimum, and its batches against plain arithmetic."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.partition.exact import best_partitions
from components.partition.groups import Group, Groups, canonical, from_labels
from components.partition.search import Cost, Memo, improved, neighbour, search, together, total


def pairwise(n: int, m: int, seed: int, *, noise: float = 0.3, wobble: float = 0.02) -> tuple[Cost, np.ndarray]:
    """Costs with planted blocks, pair effects and a bit that is the group's own; and the planted labels."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(m), random.integers(0, m, n - m)])
    effect = np.where(np.equal.outer(labels, labels), -0.3, 0.3) + noise * random.standard_normal((n, n))

    def one(group: Group) -> float:
        inside = effect[np.ix_(group, group)].sum() - effect[group, group].sum()
        own = np.random.default_rng([seed, *group]).standard_normal()
        return float(len(group) + inside / len(group) + wobble * own)

    return lambda groups: np.array([one(group) for group in groups]), labels


def random_start(n: int, m: int, seed: int) -> Groups:
    return from_labels(np.concatenate([np.arange(m), np.random.default_rng(seed).integers(0, m, n - m)]))


@pytest.mark.parametrize("seed", range(5))
def test_search_finds_the_exact_optimum_of_small_problems(seed: int) -> None:
    n = 7
    cost, _ = pairwise(n, 3, seed)
    table = cost([tuple(i for i in range(n) if k >> i & 1) or (0,) for k in range(2**n)])
    found = search(cost, {m: random_start(n, m, seed) for m in range(1, n + 1)})
    assert found.complete
    assert found.best == {m: groups for m, (_, groups) in enumerate(best_partitions(table), start=1)}


def test_search_finds_planted_blocks_from_random_starts() -> None:
    cost, labels = pairwise(30, 4, seed=0)
    found = search(cost, {m: random_start(30, m, seed=1) for m in range(1, 6)})
    assert found.complete
    assert found.best[4] == from_labels(labels)
    costs = [cost(found.best[m]).sum() for m in range(1, 5)]
    assert costs == sorted(costs, reverse=True)


def test_local_search_ends_where_no_move_and_no_swap_helps() -> None:
    cost, _ = pairwise(7, 3, seed=3, noise=1.0)
    memo = Memo(cost)
    groups = together(memo, [improved(memo, random_start(7, 3, seed=0))])[0]
    labels = {i: g for g, group in enumerate(groups) for i in group}
    for i in range(7):
        for j in range(7):
            for changed in ({**labels, i: labels[j]}, {**labels, i: labels[j], j: labels[i]}):
                other = canonical([[k for k in changed if changed[k] == g] for g in range(3)])
                if len(other) == 3:
                    assert total(memo, groups) <= total(memo, other) + 1e-9


def test_swaps_help_where_moves_do_not() -> None:
    def cost(groups: Sequence[Group]) -> np.ndarray:
        pairs = {(0, 1): 0.0, (2, 3): 0.0}
        return np.array([pairs.get(group, 1.0 if len(group) == 2 else 9.0) for group in groups])

    memo = Memo(cost)
    assert together(memo, [improved(memo, ((0, 2), (1, 3)))]) == [((0, 1), (2, 3))]


def test_neighbours_are_the_cheapest_merge_and_the_cheapest_split() -> None:
    memo = Memo(pairwise(6, 2, seed=0)[0])
    groups = ((0, 3), (1, 4), (2, 5))
    merges = [canonical([groups[a] + groups[b], groups[3 - a - b]]) for a, b in ((0, 1), (0, 2), (1, 2))]
    merged, split = together(memo, [neighbour(groups, 2), neighbour(groups, 4)])
    assert merged == min(merges, key=lambda g: total(memo, g))
    splits = [canonical([*(set(group) - {i} for group in groups), {i}]) for i in range(6)]
    assert split == min(splits, key=lambda g: total(memo, g))


def test_searches_side_by_side_find_what_each_finds_alone() -> None:
    memo = Memo(pairwise(12, 3, seed=1, noise=1.0)[0])
    starts = [random_start(12, m, seed=m) for m in range(1, 6)]
    alone = [together(memo, [improved(memo, start)])[0] for start in starts]
    assert together(memo, [improved(memo, start) for start in starts]) == alone
    assert together(memo, []) == []


def test_every_group_is_scored_once_and_in_batches() -> None:
    plain, _ = pairwise(12, 3, seed=0)
    seen: list[Group] = []
    batches = []

    def counting(groups: Sequence[Group]) -> np.ndarray:
        seen.extend(groups)
        batches.append(len(groups))
        return plain(groups)

    found = search(counting, {m: random_start(12, m, seed=0) for m in range(1, 6)})
    assert len(set(seen)) == len(seen) == found.scored
    assert len(batches) < len(seen) / 20


def test_a_spent_budget_ends_the_search_and_is_reported() -> None:
    cost, _ = pairwise(20, 4, seed=0)
    starts = {m: random_start(20, m, seed=0) for m in range(1, 6)}
    short, full = search(cost, starts, budget=150), search(cost, starts)
    assert (short.complete, full.complete) == (False, True)
    assert short.scored < full.scored
    assert {m: len(groups) for m, groups in short.best.items()} == {m: m for m in range(1, 6)}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 1000), st.booleans())
def test_always_partitions_into_m_never_worse_than_the_start(n: int, seed: int, equal: bool) -> None:
    cost = (lambda groups: np.array([float(len(g)) for g in groups])) if equal else pairwise(n, 1, seed, noise=2.0)[0]
    starts = {m: random_start(n, m, seed) for m in range(1, n + 1)}
    for m, groups in search(cost, starts).best.items():
        assert len(groups) == m
        assert canonical(groups) == groups
        assert sorted(i for group in groups for i in group) == list(range(n))
        assert cost(groups).sum() <= cost(starts[m]).sum() + 1e-9
