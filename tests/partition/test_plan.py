"""The whole choice on a toy surrogate, by both routes."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from components.partition.groups import to_members
from components.partition.plan import choose_partition

PLANTED = [["d0", "d2", "d4"], ["d1", "d3", "d5"]]


def some_subsets(n: int) -> np.ndarray:
    return np.random.default_rng(0).random((2 * n, n)) < 0.4


def test_planted_blocks_exactly(toy: type) -> None:
    partition = choose_partition(**toy([0, 1, 0, 1, 0, 1]).arguments())
    assert partition.groups == PLANTED
    assert (partition.method, partition.complete, partition.kept_champion) == ("exact", True, False)
    assert partition.scored == 63
    np.testing.assert_array_equal(partition.co_membership, np.equal.outer([0, 1] * 3, [0, 1] * 3))
    assert partition.affinity.affinity_groups == PLANTED
    assert partition.affinity.objective == pytest.approx(partition.affinity.affinity_objective)
    assert partition.affinity.gap == pytest.approx(0, abs=1e-3)


def test_planted_blocks_by_search(toy: type) -> None:
    surrogate = toy([0, 1, 0, 1, 0, 1])
    partition = choose_partition(**surrogate.arguments(some_subsets(6)))
    exact = choose_partition(**surrogate.arguments())
    assert (partition.method, partition.co_membership) == ("search", None)
    assert partition.groups == PLANTED
    assert [point.loss for point in partition.curve] == pytest.approx([point.loss for point in exact.curve])
    assert partition.gain.mean == pytest.approx(exact.gain.mean)


def test_sixteen_datasets_are_searched(toy: type) -> None:
    labels = [i % 3 for i in range(16)]
    partition = choose_partition(**toy(labels, rows=10).arguments(some_subsets(16)), max_groups=4)
    assert partition.groups == [[f"d{i}" for i in range(16) if i % 3 == g] for g in range(3)]
    assert [point.m for point in partition.curve] == [1, 2, 3, 4]
    assert partition.complete


def slow_losses(surrogate, groups: list[list[str]], column: int, rows_used: list[np.ndarray]) -> list[np.ndarray]:
    numbers = [tuple(surrogate.names.index(name) for name in group) for group in groups]
    found: dict[int, np.ndarray] = {}
    for rows in surrogate.row_losses(to_members(numbers, surrogate.n)):
        found |= {i: losses[column][rows_used[i]] / surrogate.entropy[i] for i, losses in rows.items()}
    return [found[i] for i in range(surrogate.n)]


def average(losses: list[np.ndarray]) -> float:
    return float(np.mean([x.mean() for x in losses]))


def test_expected_losses_and_curve_by_definition(toy: type) -> None:
    surrogate = toy([0, 1, 0, 1])
    partition = choose_partition(**surrogate.arguments(), max_groups=3)
    every = [np.ones(len(half), dtype=bool) for half in surrogate.second_half]
    one, each = [surrogate.names], [[name] for name in surrogate.names]
    assert partition.expected.chosen == pytest.approx(average(slow_losses(surrogate, partition.groups, 0, every)))
    assert partition.expected.one == pytest.approx(average(slow_losses(surrogate, one, 0, every)))
    assert partition.expected.each == pytest.approx(average(slow_losses(surrogate, each, 0, every)))
    assert [point.m for point in partition.curve] == [1, 2, 3]
    assert partition.curve[0].loss == pytest.approx(partition.expected.one)
    assert min(partition.curve, key=lambda point: point.loss).standard_error == 0


def test_gain_is_chosen_on_one_half_and_measured_on_the_other(toy: type, set_partitions: Callable) -> None:
    surrogate = toy([0, 1, 0, 1, 0], harm=0.02, noise=0.3)
    partition = choose_partition(**surrogate.arguments(), groups=2)
    halves = [[~half for half in surrogate.second_half], surrogate.second_half]
    named = [[[surrogate.names[i] for i in g] for g in groups] for groups in set_partitions(5) if len(groups) == 2]
    gains, picks = [], []
    for h in (0, 1):
        pick = min(named, key=lambda groups, h=h: average(slow_losses(surrogate, groups, 1 + h, halves[h])))
        other = halves[1 - h]
        one = average(slow_losses(surrogate, [surrogate.names], 1 + h, other))
        gains.append(one - average(slow_losses(surrogate, pick, 1 + h, other)))
        picks.append(pick)
    assert picks[0] != picks[1]
    assert partition.gain.mean == pytest.approx(np.mean(gains))
    assert partition.gain.standard_error > 0


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("exact", [True, False])
def test_a_given_number_of_groups(toy: type, groups: int, exact: bool) -> None:
    arguments = toy([0, 1, 0, 1, 0]).arguments(None if exact else some_subsets(5))
    partition = choose_partition(**arguments, groups=groups, max_groups=3)
    assert len(partition.groups) == groups
    assert len(partition.curve) == max(groups, 3)
    assert partition.affinity.bound >= partition.affinity.objective - 1e-9


@pytest.mark.parametrize("exact", [True, False])
def test_one_dataset(toy: type, exact: bool) -> None:
    arguments = toy([0]).arguments(None if exact else np.zeros((0, 1), dtype=bool))
    partition = choose_partition(**arguments)
    assert partition.groups == [["d0"]]
    assert partition.expected.chosen == partition.expected.one == partition.expected.each
    assert (partition.gain.mean, partition.gain.standard_error) == (0, 0)
    assert partition.alternatives == []


@pytest.mark.parametrize(("labels", "expected"), [([0, 0], [["d0", "d1"]]), ([0, 1], [["d0"], ["d1"]])])
def test_two_datasets(toy: type, labels: list[int], expected: list[list[str]]) -> None:
    assert choose_partition(**toy(labels).arguments()).groups == expected


def test_equal_losses_give_one_group(toy: type) -> None:
    partition = choose_partition(**toy([0, 1, 2, 0], harm=0.0, noise=0.0).arguments())
    assert partition.groups == [["d0", "d1", "d2", "d3"]]
    assert partition.gain.mean == 0


def test_the_champion_stays_unless_clearly_beaten(toy: type) -> None:
    previous = [["d0", "d2"], ["d1", "d3", "d5"], ["d4"]]
    # What a different partition changes is lost in the noise of single rows: the champion is good enough.
    noisy = choose_partition(**toy([0, 1, 0, 1, 0, 1], harm=0.001, noise=0.5).arguments(), previous=previous)
    assert noisy.kept_champion
    assert noisy.groups == previous
    clear = choose_partition(**toy([0, 1, 0, 1, 0, 1]).arguments(), previous=previous)
    assert not clear.kept_champion
    assert clear.groups == PLANTED
    refused = next(a for a in clear.alternatives if a.groups == previous)
    assert refused.worse_by > refused.standard_error


def test_the_gain_of_a_champion_kept_is_its_own(toy: type) -> None:
    surrogate = toy([0, 1, 0, 1], harm=0.3)
    previous = [["d0", "d2"], ["d1", "d3"]]
    partition = choose_partition(**surrogate.arguments(), previous=previous)
    assert partition.kept_champion
    assert partition.groups == previous
    halves = [[~half for half in surrogate.second_half], surrogate.second_half]
    gains = [
        average(slow_losses(surrogate, [surrogate.names], 1 + h, halves[1 - h]))
        - average(slow_losses(surrogate, previous, 1 + h, halves[1 - h]))
        for h in (0, 1)
    ]
    assert partition.gain.mean == pytest.approx(np.mean(gains))


def test_a_new_dataset_joins_the_champion(toy: type) -> None:
    arguments = toy([0, 1, 0, 1, 0]).arguments()
    partition = choose_partition(**arguments, previous=[["d0", "d2", "gone"], ["d1", "d3"]])
    assert partition.kept_champion
    assert partition.groups == [["d0", "d2", "d4"], ["d1", "d3"]]


@pytest.mark.parametrize("rule", [{"groups": 2}, {"max_groups": 2}])
def test_settings_overrule_the_champion(toy: type, rule: dict) -> None:
    arguments = toy([0, 1, 0, 1], harm=0.001, noise=0.5).arguments()
    partition = choose_partition(**arguments, previous=[["d0"], ["d1"], ["d2", "d3"]], **rule)
    assert not partition.kept_champion
    assert len(partition.groups) <= 2


def test_alternatives_are_other_partitions_best_first(toy: type) -> None:
    partition = choose_partition(**toy([0, 1, 0, 1, 0]).arguments())
    losses = [alternative.loss for alternative in partition.alternatives]
    assert losses == sorted(losses)
    assert partition.groups not in [alternative.groups for alternative in partition.alternatives]
    for alternative in partition.alternatives:
        assert alternative.worse_by == pytest.approx(alternative.loss - partition.expected.chosen)


def test_json_keeps_everything(toy: type) -> None:
    partition = choose_partition(**toy([0, 1, 0]).arguments())
    again = json.loads(json.dumps(partition.to_json()))
    assert again == partition.to_json()
    assert again["curve"][0] == {
        "m": 1,
        "loss": partition.curve[0].loss,
        "standard_error": partition.curve[0].standard_error,
    }
    assert {
        "groups",
        "expected",
        "gain",
        "bound",
        "objective",
        "gap",
        "co_membership",
        "method",
        "kept_champion",
    } <= set(again)


def test_the_same_inputs_give_the_same_answer(toy: type) -> None:
    first, again = (choose_partition(**toy([0, 1, 0, 1]).arguments()) for _ in range(2))
    assert first == again


def test_wrong_inputs_name_the_datasets(toy: type) -> None:
    arguments = toy([0, 1]).arguments()
    with pytest.raises(UserError, match="groups is 3, but there are 2 datasets"):
        choose_partition(**arguments, groups=3)
    with pytest.raises(UserError, match="d1: all validation rows have the same label"):
        choose_partition(**arguments | {"entropy": np.array([1.0, 0.0])})
    with pytest.raises(UserError, match="d0: 1 validation rows"):
        choose_partition(**arguments | {"second_half": [np.array([True]), arguments["second_half"][1]]})


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.floats(0, 0.5), st.floats(0, 1), st.integers(0, 99))
def test_always_a_partition(toy: type, labels: list[int], harm: float, noise: float, seed: int) -> None:
    surrogate = toy(labels, harm=harm, noise=noise, rows=6, seed=seed)
    partition = choose_partition(**surrogate.arguments() | {"bootstrap": 5}, max_groups=4, seed=seed)
    assert sorted(name for group in partition.groups for name in group) == surrogate.names
    assert len(partition.groups) <= 4
    assert partition.affinity.gap >= 0
