"""Gains of moves and swaps against recomputing the objective."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.partition.groups import Groups, canonical, from_labels, to_labels
from components.partition.rounding import affinity_objective, improve, round_relaxation
from components.partition.sdp import normalise


def single_changes(groups: Groups, n: int) -> list[Groups]:
    """Every partition one move or one swap away, by brute force."""
    labels, found = to_labels(groups, n), []
    for i in range(n):
        for target in range(len(groups)):
            moved = labels.copy()
            moved[i] = target
            found.append(from_labels(moved))
        for j in range(n):
            swapped = labels.copy()
            swapped[[i, j]] = labels[[j, i]]
            found.append(from_labels(swapped))
    return [changed for changed in found if len(changed) == len(groups)]


def test_objective_is_the_inner_product_with_x() -> None:
    affinity = normalise(np.random.default_rng(0).standard_normal((6, 6)))
    groups = ((0, 3, 5), (1, 2), (4,))
    x = np.zeros((6, 6))
    for group in groups:
        x[np.ix_(group, group)] = 1 / len(group)
    assert affinity_objective(affinity, groups) == pytest.approx((affinity * x).sum())


@pytest.mark.parametrize("seed", range(5))
def test_improve_ends_where_no_single_change_helps(seed: int) -> None:
    random = np.random.default_rng(seed)
    affinity = normalise(random.standard_normal((9, 9)))
    start = from_labels(np.concatenate([np.arange(3), random.integers(0, 3, 6)]))
    groups = improve(affinity, start)
    reached = affinity_objective(affinity, groups)
    assert len(groups) == 3
    assert reached >= affinity_objective(affinity, start)
    assert reached >= max(affinity_objective(affinity, changed) for changed in single_changes(groups, 9)) - 1e-9


def test_swaps_are_found_where_no_move_helps() -> None:
    affinity = normalise(np.kron(np.eye(2), np.ones((2, 2))) - 5 * np.eye(4))
    assert improve(affinity, ((0, 2), (1, 3))) == ((0, 1), (2, 3))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 100), st.data())
def test_rounding_always_gives_a_partition_into_m(n: int, seed: int, data: st.DataObject) -> None:
    m = data.draw(st.integers(1, n))
    affinity = normalise(np.random.default_rng(seed).integers(-1, 2, (n, n)).astype(float))
    groups = round_relaxation(affinity, np.full((n, n), 1 / n), m, seed=seed)
    assert len(groups) == m
    assert canonical(groups) == groups
    assert sorted(i for group in groups for i in group) == list(range(n))
    assert groups == round_relaxation(affinity, np.full((n, n), 1 / n), m, seed=seed)
