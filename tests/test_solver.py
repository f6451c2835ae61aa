from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from components import solver
from components.errors import UserError
from components.solver import PathSolver, Solution, chunks
from components.tables import Features

ROWS, DIM = (30, 80, 55, 120), 12
LAMBDAS = [3.0, 0.3, 0.03, 0.003]
MEMBERS = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0]], bool)


def solve(blocks: list[Features], members: np.ndarray, lambdas: list[float], **options: Any) -> Solution:
    return PathSolver(blocks).solve(members, lambdas, **options)


def make(seed: int = 0, scale: float = 1.0) -> list[Features]:
    rng = np.random.default_rng(seed)
    blocks = []
    for i, rows in enumerate(ROWS):
        features = rng.normal(size=(rows, DIM)) * rng.gamma(1.0, 1.0, DIM) + rng.normal(size=DIM) * 0.4
        margin = rng.normal(size=rows) * 1.5 + i - 1
        blocks.append(Features(np.arange(rows), (features * scale).astype(np.float32), margin.astype(np.float32)))
    return blocks


def objective(w: np.ndarray, blocks: list[Features], subset: np.ndarray, lam: float) -> tuple[float, np.ndarray]:
    """The slow, obvious form, in float64."""
    inside = [block for block, held in zip(blocks, subset, strict=True) if held]
    loss, gradient = lam / 2 * w @ w, lam * w
    for block in inside:
        features = block.features.astype(np.float64)
        margin = block.margin + features @ w
        loss += np.logaddexp(0, -margin).mean() / len(inside)
        gradient = gradient - features.T @ (1 / (1 + np.exp(margin))) / len(margin) / len(inside)
    return loss, gradient


def optimum(blocks: list[Features], subset: np.ndarray, lam: float) -> tuple[float, np.ndarray]:
    found = minimize(
        objective,
        np.zeros(DIM),
        (blocks, subset, lam),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9},
    )
    return found.fun, found.x


def test_every_subset_and_lambda_ends_at_scipys_optimum() -> None:
    blocks = make()
    solution = solve(blocks, MEMBERS, LAMBDAS)
    assert solution.weights.shape == (4, 5, DIM)
    assert solution.weights.dtype == np.float32
    for at, lam in enumerate(LAMBDAS):
        for k, subset in enumerate(MEMBERS):
            best, weights = optimum(blocks, subset, lam)
            loss, gradient = objective(solution.weights[at, k].astype(np.float64), blocks, subset, lam)
            assert best - 1e-9 <= loss <= best + 1e-6
            np.testing.assert_allclose(solution.weights[at, k], weights, atol=0.02 * np.abs(weights).max() + 1e-3)
            np.testing.assert_allclose(solution.gradient_norm[at, k], np.linalg.norm(gradient), atol=1e-5)


def test_without_offsets_it_is_sklearns_logistic_regression() -> None:
    block = make()[3]
    block = Features(block.row, block.features, np.zeros_like(block.margin))
    sign = np.where(np.arange(len(block.row)) % 2, 1.0, -1.0)
    lam = 0.05
    # log(1 + exp(-g.w)) is the loss of a sample sign * g with label sign
    reference = LogisticRegression(C=1 / (lam * len(sign)), fit_intercept=False, tol=1e-10, max_iter=1000)
    reference.fit(block.features * sign[:, None], sign)
    weights = solve([block], np.array([[True]]), [lam]).weights[0, 0]
    np.testing.assert_allclose(weights, reference.coef_[0], atol=2e-3)


def test_the_gap_is_below_the_tolerance_asked_for() -> None:
    blocks = make()
    for tolerance in (1e-3, 1e-8):
        solution = solve(blocks, MEMBERS, LAMBDAS, tolerance=tolerance)
        for at, lam in enumerate(LAMBDAS):
            for k, subset in enumerate(MEMBERS):
                loss = objective(solution.weights[at, k].astype(np.float64), blocks, subset, lam)[0]
                assert loss - optimum(blocks, subset, lam)[0] <= tolerance


def test_a_subset_does_not_depend_on_its_company_or_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = make()
    together = solve(blocks, MEMBERS, LAMBDAS, tolerance=1e-9)
    alone = [solve(blocks, MEMBERS[k : k + 1], LAMBDAS, tolerance=1e-9).weights for k in range(5)]
    np.testing.assert_allclose(together.weights, np.concatenate(alone, axis=1), atol=1e-3)
    monkeypatch.setitem(solver.CELLS, "cpu", 300)
    rows = np.array([len(block.row) for block in blocks])
    assert [part.stop for part in solver.chunks(MEMBERS, rows, "cpu")] == [2, 3, 4, 5]
    small = solve(blocks, MEMBERS, LAMBDAS, tolerance=1e-9)
    np.testing.assert_allclose(small.weights, together.weights, atol=1e-3)


def test_a_dataset_outside_the_subset_does_not_matter() -> None:
    blocks = make()
    changed = [blocks[0], make(seed=9)[1], *blocks[2:]]
    subset = np.array([[1, 0, 1, 0]], bool)
    one, other = (solve(each, subset, [0.1], tolerance=1e-9).weights for each in (blocks, changed))
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_the_scale_of_the_features_does_not_matter(scale: float) -> None:
    blocks, scaled = make(), make(scale=scale)
    plain = solve(blocks, MEMBERS, LAMBDAS, tolerance=1e-9).weights
    other = solve(scaled, MEMBERS, [lam * scale**2 for lam in LAMBDAS], tolerance=1e-9).weights
    np.testing.assert_allclose(other * scale, plain, atol=2e-3)


def test_steps_too_long_are_halved() -> None:
    # Confidently wrong rows have no curvature: a Newton step overshoots by orders of magnitude.
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(50, DIM)) + 1).astype(np.float32)
    block = Features(np.arange(50), features, np.full(50, -30.0, np.float32))
    for lam in (1.0, 1e-3):
        weights = solve([block], np.array([[True]]), [lam]).weights[0, 0].astype(np.float64)
        loss = objective(weights, [block], np.array([True]), lam)[0]
        assert loss <= optimum([block], np.array([True]), lam)[0] + 1e-6


def test_rows_right_beyond_doubt_leave_the_weights_at_zero() -> None:
    block = make()[0]
    certain = Features(block.row, block.features, np.full_like(block.margin, 200.0))
    solution = solve([certain, block], np.array([[1, 0], [1, 1]], bool), LAMBDAS)
    np.testing.assert_array_equal(solution.weights[:, 0], 0)
    assert (np.linalg.norm(solution.weights[:, 1], axis=1) > 0).all()


def test_chunks_hold_at_most_the_cells_and_every_subset_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(solver.CELLS, "cpu", 250)
    parts = list(chunks(MEMBERS, np.array(ROWS), "cpu"))  # sizes 30, 200, 205, 285, 55
    assert [(part.start, part.stop) for part in parts] == [(0, 2), (2, 3), (3, 4), (4, 5)]


def test_unusable_features_are_named() -> None:
    blocks = make()
    zero = Features(blocks[1].row, np.zeros_like(blocks[1].features), blocks[1].margin)
    with pytest.raises(UserError, match="wic: every feature is zero"):
        PathSolver([blocks[0], zero], names=["rte", "wic"])


def test_a_subset_that_does_not_converge_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "MAX_ITERATIONS", 1)
    with pytest.raises(UserError, match="did not converge at lambda 1e-05; the first holds b, d"):
        PathSolver(make(), names=list("abcd")).solve(MEMBERS[1:2], [1e-5])


def test_wrong_members_and_lambdas_are_refused() -> None:
    blocks = make()
    with pytest.raises(ValueError, match=r"expected bool \[K, 4\]"):
        solve(blocks, MEMBERS[:, :3], LAMBDAS)
    with pytest.raises(ValueError, match="without datasets"):
        solve(blocks, np.zeros((1, 4), bool), LAMBDAS)
    for lambdas in ([0.1, 1.0], [1.0, 0.0], []):
        with pytest.raises(ValueError, match="positive and descending"):
            solve(blocks, MEMBERS, lambdas)
