"""Dynamic programming against all set partitions."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.partition.exact import best_groups, best_partitions, bit_masks
from components.partition.groups import canonical


def mask(group: tuple[int, ...]) -> int:
    return sum(1 << i for i in group)


@pytest.mark.parametrize("n", range(1, 8))
def test_best_partitions_are_those_of_brute_force(n: int, set_partitions: Callable) -> None:
    cost = np.random.default_rng(n).normal(size=2**n)
    everything = [(sum(cost[mask(group)] for group in groups), groups) for groups in set_partitions(n)]
    for m, (total, groups) in enumerate(best_partitions(cost), start=1):
        slow_total, slow_groups = min(found for found in everything if len(found[1]) == m)
        assert total == pytest.approx(slow_total)
        assert groups == slow_groups


def test_a_batch_of_tables_gives_what_each_gives_alone() -> None:
    costs = np.random.default_rng(0).random((5, 2**6))
    for m in range(1, 7):
        assert best_groups(costs, m) == [best_partitions(cost)[m - 1][1] for cost in costs]


def test_batches_larger_than_the_working_set_are_split() -> None:
    costs = np.random.default_rng(0).random((70, 2**12))
    assert best_groups(costs, 2)[69] == best_groups(costs[69:], 2)[0]


def test_planted_blocks_of_twelve() -> None:
    blocks = ((0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11))
    cost = np.array(
        [
            sum(len(set(group) & set(block)) * len(set(group) - set(block)) for block in blocks) + 0.5
            for group in subsets(12)
        ]
    )
    total, groups = best_partitions(cost)[2]
    assert (total, groups) == (1.5, blocks)


def subsets(n: int) -> list[tuple[int, ...]]:
    return [tuple(i for i in range(n) if k >> i & 1) for k in range(2**n)]


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2**n, max_size=2**n)))
def test_always_a_partition_even_with_ties(cost: list[float]) -> None:
    n = len(cost).bit_length() - 1
    for m, (total, groups) in enumerate(best_partitions(np.array(cost)), start=1):
        assert len(groups) == m
        assert canonical(groups) == groups
        assert sorted(i for group in groups for i in group) == list(range(n))
        assert total == sum(cost[mask(group)] for group in groups)


def test_bit_masks() -> None:
    np.testing.assert_array_equal(bit_masks(np.array([[True, False, True], [False, True, False]])), [5, 2])


def test_wrong_tables_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2\*\*n"):
        best_partitions(np.zeros(6))
    with pytest.raises(ValueError, match="finite"):
        best_partitions(np.array([0.0, 1.0, np.nan, 1.0]))
    with pytest.raises(ValueError, match="into 3 groups"):
        best_groups(np.zeros((1, 4)), 3)
