"""Selection on planted data: helpers are found, harmful and noisy datasets are not; the fast way is the slow one's."""

import numpy as np
import pytest

from components.estimator import GroupEstimator
from components.selection.forward import forward_selection, leave_one_out
from components.selection.scores import paired_subsets, random_scores
from components.tables import Features

DIM = 12
LAMBDAS = [1000, 300, 100, 30, 10, 3, 1]
TIME = 20.0  # that a dataset adds: long enough to fit what there is
NAMES = ["target", "helper-a", "helper-b", "harm-a", "harm-b", "noise-a", "noise-b"]
TARGET = 0


def planted(rng: np.random.Generator, rows: int, agrees: float) -> Features:
    """Rows whose margins grow along one common direction (``agrees`` 1), against it (-1), or along none (0)."""
    direction = np.random.default_rng(99).normal(size=DIM)
    x = rng.normal(size=(rows, DIM))
    odds = 3 * x @ direction / np.linalg.norm(direction) * agrees
    label = np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), 1.0, -1.0)
    row = rng.integers(0, 2**62, rows)
    return Features(row, (label[:, None] * x).astype(np.float32), 0.1 * rng.normal(size=rows).astype(np.float32))


def estimator(seed: int = 0) -> GroupEstimator:
    """The target has few training rows, so others that agree with it are worth having."""
    rng = np.random.default_rng(seed)
    agree = {"target": 1.0, "helper": 1.0, "harm": -1.0, "noise": 0.0}
    kinds = [agree[name.split("-")[0]] for name in NAMES]
    train = [planted(rng, 16 if i == TARGET else 150, kind) for i, kind in enumerate(kinds)]
    validation = [planted(rng, 400, kind) for kind in kinds]
    return GroupEstimator(train, validation, LAMBDAS, np.full(len(NAMES), TIME), seed=0, names=NAMES)


@pytest.fixture(scope="module")
def known() -> GroupEstimator:
    return estimator()


def slow_order(of: GroupEstimator) -> tuple[list[str], list[float]]:
    """Every candidate of every round solved by itself, from nothing."""
    subset, order, losses = [TARGET], [], []
    while len(subset) < len(NAMES):
        found = {}
        for j in set(range(len(NAMES))) - set(subset):
            members = np.array([[i in (*subset, j) for i in range(len(NAMES))]])
            found[j] = of.solve(members).loss[0, 0, TARGET]
        best = min(found, key=found.__getitem__)
        subset.append(best)
        order.append(NAMES[best])
        losses.append(found[best])
    return order, losses


def test_the_order_and_its_losses_are_those_of_a_slow_loop(known: GroupEstimator) -> None:
    order, losses = slow_order(known)
    found = forward_selection(known, TARGET, NAMES)
    assert [addition.name for addition in found.additions] == order
    np.testing.assert_allclose([addition.loss for addition in found.additions], losses, atol=2e-4)
    alone = known.solve(np.array([[True] + [False] * 6])).loss[0, 0, TARGET]
    assert found.alone == pytest.approx(alone, abs=2e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_helpers_are_chosen_and_nothing_else(seed: int) -> None:
    found = forward_selection(estimator(seed), TARGET, NAMES)
    assert found.additions[0].name.startswith("helper")
    assert found.chosen and all(name.startswith("helper") for name in found.chosen)
    first = found.additions[0]
    assert first.gain > first.standard_error > 0


def test_without_helpers_nothing_is_chosen() -> None:
    rng = np.random.default_rng(5)
    kinds = [1.0] + [0.0] * 8
    train, validation = ([planted(rng, rows, kind) for kind in kinds] for rows in (60, 200))
    of = GroupEstimator(train, validation, LAMBDAS, np.full(9, TIME), seed=0)
    found = forward_selection(of, 0, [str(i) for i in range(9)])
    assert found.chosen == []
    assert len(found.additions) == 8  # the whole order is told all the same


def test_scores_tell_helpers_from_harm(known: GroupEstimator) -> None:
    scores = random_scores(known, TARGET, NAMES, subsets=60, seed=0)
    assert set(scores) == set(NAMES) - {"target"}
    helpers, harm = ([scores[f"{kind}-{k}"].gain for k in "ab"] for kind in ("helper", "harm"))
    assert min(helpers) > 0 > max(harm)
    assert all(one.standard_error > 0 for one in scores.values())


def test_a_score_is_a_difference_of_means_over_subsets(known: GroupEstimator) -> None:
    members = paired_subsets(len(NAMES), TARGET, 10, np.random.default_rng(4))
    assert members[:, TARGET].all() and (members[:, 1:].sum(axis=0) == 10).all()
    loss = [known.solve(row[None]).loss[0, 0, TARGET] for row in members]
    scores = random_scores(known, TARGET, NAMES, subsets=20, seed=4)
    for i, name in enumerate(NAMES[1:], start=1):
        inside = [value for value, row in zip(loss, members, strict=True) if row[i]]
        outside = [value for value, row in zip(loss, members, strict=True) if not row[i]]
        assert scores[name].gain == pytest.approx(np.mean(outside) - np.mean(inside), abs=2e-4)


def test_a_scores_standard_error_is_how_scores_of_other_subsets_differ(known: GroupEstimator) -> None:
    drawn = [random_scores(known, TARGET, NAMES, subsets=24, seed=seed) for seed in range(80)]
    spread = [np.std([one[name].gain for one in drawn], ddof=1) for name in NAMES[1:]]
    told = [np.mean([one[name].standard_error for one in drawn]) for name in NAMES[1:]]
    assert np.mean(spread) == pytest.approx(np.mean(told), rel=0.15)


def test_leaving_one_out_is_one_solve_without_it(known: GroupEstimator) -> None:
    effects = leave_one_out(known, TARGET, NAMES)
    whole = known.row_losses(np.ones((1, 7), bool))[0][TARGET][0]
    for i, name in enumerate(NAMES[1:], start=1):
        without = known.row_losses(np.array([np.arange(7) != i]))[0][TARGET][0]
        fall = without - whole
        assert effects[name].gain == pytest.approx(fall.mean(), abs=2e-4)
        assert effects[name].standard_error == pytest.approx(fall.std(ddof=1) / 20, rel=0.05)
    assert min(effects["helper-a"].gain, effects["helper-b"].gain) > 0 > effects["harm-a"].gain
