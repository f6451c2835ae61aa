"""Losses looked up, solved, halved and resampled, each against its definition."""

import numpy as np
import pytest

from components.partition.groups import to_members
from components.partition.losses import Losses


def build(toy: type, members: np.ndarray | None = None) -> tuple[object, Losses]:
    surrogate = toy([0, 0, 1, 1])
    a = surrogate.arguments(members)
    surrogate.asked = 0
    return surrogate, Losses(a["entropy"], a["members"], a["loss"], a["row_losses"], a["second_half"])


def slow_cost(surrogate, group: tuple[int, ...], column: int) -> float:
    rows = surrogate.row_losses(to_members([group], surrogate.n))[0]
    cost = 0.0
    for i in group:
        second = surrogate.second_half[i]
        used = [np.ones(len(second), dtype=bool), ~second, second][column]
        cost += rows[i][column][used].mean() / surrogate.entropy[i]
    return cost


def test_the_table_holds_every_subset_by_bit_mask(toy: type) -> None:
    surrogate, losses = build(toy)
    table = losses.table()
    assert table.shape == (3, 16)
    for group in [(0,), (1, 3), (0, 1, 2, 3)]:
        for column in range(3):
            assert table[column, sum(1 << i for i in group)] == pytest.approx(slow_cost(surrogate, group, column))


def test_unknown_groups_are_solved_once_and_known_ones_never(toy: type) -> None:
    surrogate, losses = build(toy, np.array([[True, True, False, False]]))
    assert losses.table() is None
    groups = [(0, 1), (2, 3), (1,), (2, 3)]
    for column in range(3):
        costs = losses.cost(column)(groups)
        asked = surrogate.asked
        np.testing.assert_allclose(costs, [slow_cost(surrogate, group, column) for group in groups])
        surrogate.asked = asked
    assert surrogate.asked == 2


def test_rows_of_a_partition(toy: type) -> None:
    surrogate, losses = build(toy)
    partition = ((0, 2), (1, 3))
    rows = surrogate.row_losses(to_members(partition, 4))
    everything = losses.rows(partition, 0)
    second = losses.rows(partition, 1, half=1)
    for i in range(4):
        expected = rows[i % 2][i] / surrogate.entropy[i]
        np.testing.assert_allclose(everything[i], expected[0])
        np.testing.assert_allclose(second[i], expected[1][surrogate.second_half[i]])
        assert len(losses.rows(partition, 2, half=0)[i]) + len(second[i]) == len(everything[i])


def test_resampled_table_against_a_loop(toy: type) -> None:
    surrogate, losses = build(toy)
    random = np.random.default_rng(0)
    counts = [random.multinomial(len(b), np.full(len(b), 1 / len(b)), size=3).astype(float) for b in surrogate.base]
    table = losses.resampled_table(counts)
    assert table.shape == (3, 16)
    for k, row in enumerate(surrogate.all_subsets(), start=1):
        rows = surrogate.row_losses(row[None])[0]
        for b in range(3):
            drawn = {i: np.repeat(rows[i][0], counts[i][b].astype(int)) for i in rows}
            assert table[b, k] == pytest.approx(sum(drawn[i].mean() / surrogate.entropy[i] for i in rows))
