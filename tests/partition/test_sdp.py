"""The relaxation: feasible, bounded, tight on planted blocks, and close to brute force once rounded."""

from collections.abc import Callable

import cvxpy
import numpy as np
import pytest

from components.partition.groups import from_labels, one_group, to_labels
from components.partition.rounding import affinity_objective, round_relaxation
from components.partition.sdp import normalise, relax, upper_bound


def planted(n: int, m: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(m), random.integers(0, m, n - m)])
    return normalise(np.equal.outer(labels, labels) + noise * random.standard_normal((n, n))), labels


def indicator(groups: tuple[tuple[int, ...], ...], n: int) -> np.ndarray:
    labels = to_labels(groups, n)
    same = np.equal.outer(labels, labels)
    return same / same.sum(axis=1)


def test_normalise_by_definition() -> None:
    raw = np.random.default_rng(0).standard_normal((5, 5))
    scaled = normalise(raw)
    centring = np.eye(5) - 0.2
    expected = centring @ (raw + raw.T) / 2 @ centring
    np.testing.assert_allclose(scaled, expected / np.abs(np.linalg.eigvalsh(expected)).max(), atol=1e-12)


def test_normalise_forgets_offsets_and_scale() -> None:
    raw = np.random.default_rng(0).standard_normal((5, 5))
    offsets = np.arange(5.0)
    np.testing.assert_allclose(normalise(3 * raw + offsets[:, None] - 7 * offsets), normalise(raw), atol=1e-12)
    np.testing.assert_array_equal(normalise(np.full((4, 4), 0.1)), np.zeros((4, 4)))


@pytest.mark.parametrize("wrong", [np.zeros((2, 3)), np.full((2, 2), np.nan)])
def test_normalise_refuses(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="square and finite"):
        normalise(wrong)


def test_the_solution_is_a_relaxed_partition() -> None:
    affinity, _ = planted(10, 3, noise=0.8)
    x = relax(affinity, groups=3).matrix
    np.testing.assert_allclose(x, x.T, atol=1e-6)
    np.testing.assert_allclose(x.sum(axis=1), 1, atol=1e-3)
    assert np.trace(x) == pytest.approx(3, abs=1e-3)
    assert x.min() > -1e-3
    assert np.linalg.eigvalsh(x).min() > -1e-3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("m", [2, 3, 5])
def test_rounding_is_within_one_percent_of_brute_force_on_random_matrices(
    seed: int, m: int, set_partitions: Callable
) -> None:
    n = 8
    affinity = normalise(np.random.default_rng(seed).standard_normal((n, n)))
    best = max(affinity_objective(affinity, groups) for groups in set_partitions(n) if len(groups) == m)
    relaxation = relax(affinity, groups=m)
    found = affinity_objective(affinity, round_relaxation(affinity, relaxation.matrix, m, seed=0))
    assert best - 0.01 * abs(best) <= found <= best + 1e-9
    assert best <= relaxation.bound + 1e-9


@pytest.mark.parametrize("m", [1, 2, 3, 4, 7])
def test_rounding_equals_brute_force_on_planted_blocks(m: int, set_partitions: Callable) -> None:
    n = 7
    affinity, labels = planted(n, m, noise=0.1, seed=m)
    best = max((g for g in set_partitions(n) if len(g) == m), key=lambda g: affinity_objective(affinity, g))
    relaxation = relax(affinity, groups=m)
    assert round_relaxation(affinity, relaxation.matrix, m, seed=0) == best == from_labels(labels)
    assert relaxation.bound == pytest.approx(affinity_objective(affinity, best), abs=1e-3)


def test_sixty_datasets_in_planted_blocks() -> None:
    affinity, labels = planted(60, 4, noise=0.5)
    relaxation = relax(affinity, groups=4)
    groups = round_relaxation(affinity, relaxation.matrix, 4, seed=0)
    assert groups == from_labels(labels)
    assert 0 <= relaxation.bound - affinity_objective(affinity, groups) < 1e-3


def test_the_penalty_finds_the_number_of_blocks() -> None:
    affinity, labels = planted(12, 3, noise=0.1)
    relaxation = relax(affinity, penalty=0.4)
    assert np.trace(relaxation.matrix) == pytest.approx(3, abs=0.02)
    groups = from_labels(labels)
    assert relaxation.bound == pytest.approx(affinity_objective(affinity, groups) - 0.4 * 3, abs=1e-3)
    np.testing.assert_allclose(relaxation.matrix, indicator(groups, 12), atol=0.02)


@pytest.mark.parametrize("groups", [None, 3])
def test_no_penalty_above_one_pays_for_a_second_group(groups: int | None) -> None:
    affinity, _ = planted(8, 3, noise=0.5)
    relaxation = relax(affinity, groups=groups, penalty=1.1)
    assert relaxation.bound == pytest.approx(-1.1, abs=1e-3) if groups is None else relaxation.bound < -1.1


@pytest.mark.parametrize("groups", [None, 2, 4])
def test_the_bound_holds_for_any_multipliers(groups: int | None, set_partitions: Callable) -> None:
    random = np.random.default_rng(1)
    affinity = normalise(random.standard_normal((6, 6)))
    best = max(affinity_objective(affinity, g) for g in set_partitions(6) if groups in (None, len(g)))
    for scale in (0.0, 0.01, 0.1, 1.0):
        noise = scale * random.random((6, 6))
        for multipliers in (noise + noise.T, noise):
            assert best <= upper_bound(affinity, multipliers, groups) + 1e-9


def test_two_hundred_datasets_in_much_noise() -> None:
    affinity, labels = planted(200, 5, noise=1.5)
    relaxation = relax(affinity, groups=5)
    groups = round_relaxation(affinity, relaxation.matrix, 5, seed=0)
    assert groups == from_labels(labels)
    objective = affinity_objective(affinity, groups)
    assert objective <= relaxation.bound <= 1.002 * objective
    spectral = upper_bound(affinity, np.zeros_like(affinity), 5)
    assert spectral > 1.1 * objective  # so the eigenvalue bound would have proved little


def scs(affinity: np.ndarray, m: int) -> float:
    """The relaxation by a general solver, as written down."""
    n = len(affinity)
    x = cvxpy.Variable((n, n), PSD=True)
    constraints = [x >= 0, x.sum(axis=1) == 1, x.trace() == m]
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.trace(affinity @ x)), constraints)
    return float(problem.solve(solver=cvxpy.SCS, eps=1e-6, max_iters=20_000))


@pytest.mark.parametrize(("n", "m", "noise"), [(10, 3, 0.5), (10, 4, 5.0), (25, 5, 1.0), (25, 3, 5.0)])
def test_the_optimum_is_scs_optimum(n: int, m: int, noise: float) -> None:
    affinity, _ = planted(n, m, noise)
    relaxation = relax(affinity, groups=m)
    optimum = scs(affinity, m)
    assert (affinity * relaxation.matrix).sum() == pytest.approx(optimum, rel=5e-4)
    assert optimum * (1 - 1e-5) <= relaxation.bound <= optimum * (1 + 5e-4)


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_datasets_need_no_solver(n: int) -> None:
    affinity = normalise(np.arange(n * n, dtype=float).reshape(n, n))
    for m in range(1, n + 1):
        relaxation = relax(affinity, groups=m)
        groups = round_relaxation(affinity, relaxation.matrix, m, seed=0)
        assert len(groups) == m
        assert relaxation.bound == pytest.approx(affinity_objective(affinity, groups))
    assert one_group(n) == round_relaxation(affinity, np.eye(n), 1, seed=0)
