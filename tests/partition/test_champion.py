"""The champion's groups meet other datasets."""

from collections.abc import Sequence

import numpy as np

from components.partition.champion import adapt
from components.partition.groups import Group


def additive(groups: Sequence[Group]) -> np.ndarray:
    """Even and odd numbers cost when together, alone everyone costs 0.5."""
    return np.array([0.5 if len(g) == 1 else sum(i % 2 != j % 2 for i in g for j in g) for g in groups], dtype=float)


def test_the_same_datasets_give_the_same_groups_in_todays_order() -> None:
    assert adapt([["c", "a"], ["b", "d"]], ["a", "b", "c", "d"], additive, 4) == ((0, 2), (1, 3))


def test_datasets_that_are_gone_leave_their_group() -> None:
    assert adapt([["a", "gone"], ["lost"], ["b"]], ["a", "b"], additive, 2) == ((0,), (1,))


def test_new_datasets_join_the_group_where_they_cost_least() -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    assert adapt([["a", "c"], ["b", "d"]], names, additive, 6) == ((0, 2, 4), (1, 3, 5))


def test_a_new_dataset_stands_alone_where_that_costs_less_and_is_allowed() -> None:
    previous, names = [["a", "b"]], ["a", "b", "c"]
    assert adapt(previous, names, additive, 2) == ((0, 1), (2,))
    assert adapt(previous, names, additive, 1) == ((0, 1, 2),)


def test_nothing_left_of_the_champion() -> None:
    assert adapt([["x"], ["y", "z"]], ["a"], additive, 3) is None
