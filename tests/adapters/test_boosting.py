"""The mathematics of a boosting step against its definitions."""

import math

import numpy as np
import pytest

from components.adapters.boosting import RIDGES, dual_coefficients, margin_of, paired_gain, residuals
from components.tables import row_losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(12, 4), scale=3)
LABEL = np.arange(12) % 4


def probability(i: int) -> float:
    return math.exp(LOGITS[i, LABEL[i]]) / sum(math.exp(z) for z in LOGITS[i])


def test_margins_are_log_odds() -> None:
    expected = [math.log(probability(i) / (1 - probability(i))) for i in range(12)]
    assert margin_of(LOGITS, LABEL) == pytest.approx(expected)
    assert np.log1p(np.exp(-margin_of(LOGITS, LABEL))) == pytest.approx(row_losses(LOGITS, LABEL))


def test_margins_leave_the_logits_as_they_are() -> None:
    logits = LOGITS.astype(np.float32)
    margin_of(logits, LABEL)
    np.testing.assert_array_equal(logits, LOGITS.astype(np.float32))


def test_the_margin_of_a_completion_row_is_its_log_odds() -> None:
    assert margin_of(np.array([[0.0, -2.5]]), np.array([1])) == pytest.approx([-2.5])


def test_residuals_are_minus_the_slope_of_the_loss() -> None:
    margin = np.array([-800.0, -3.0, 0.0, 1.5, 40.0])
    step = 1e-6
    slope = (np.logaddexp(0, -(margin + step)) - np.logaddexp(0, -(margin - step))) / (2 * step)
    assert residuals(margin) == pytest.approx(-slope, abs=1e-6)
    assert residuals(np.array([-800.0, 0.0])).tolist() == [1.0, 0.5]


def primal_ridge(features: np.ndarray, target: np.ndarray, weight: np.ndarray, ridge: float) -> np.ndarray:
    """Minimise sum_i v_i (g_i . w - r_i)^2 + ridge |w|^2 as a plain least-squares problem."""
    rows = np.concatenate([features * np.sqrt(weight)[:, None], math.sqrt(ridge) * np.eye(features.shape[1])])
    aims = np.concatenate([target * np.sqrt(weight), np.zeros(features.shape[1])])
    return np.linalg.lstsq(rows, aims, rcond=None)[0]


@pytest.mark.parametrize(("rows", "dim"), [(60, 8), (20, 50)], ids=["more rows", "more numbers"])
def test_the_dual_solution_is_the_weighted_ridge_fit(rows: int, dim: int) -> None:
    features, target = RNG.normal(size=(rows, dim)).astype(np.float32), RNG.random(rows)
    weight = np.where(np.arange(rows) < rows // 4, 4 / rows, 4 / (3 * rows))  # two datasets that weigh the same
    dual, ridge = dual_coefficients(features, target, weight, seed=1)
    assert ridge in RIDGES
    share = weight / weight.mean()
    total = (share[:, None] * features.astype(np.float64) ** 2).sum()
    np.testing.assert_allclose(features.T @ dual, primal_ridge(features, target, share, ridge * total), atol=1e-8)


def test_the_scale_of_weights_and_features_does_not_matter() -> None:
    features, target, weight = RNG.normal(size=(30, 6)), RNG.random(30), RNG.random(30) + 0.5
    dual, ridge = dual_coefficients(features, target, weight, seed=1)
    scaled, same = dual_coefficients(1000 * features, target, 7 * weight, seed=1)
    assert same == ridge
    np.testing.assert_allclose(1000 * features @ (1000 * features).T @ scaled, features @ features.T @ dual, atol=1e-8)


def held_out(features: np.ndarray, target: np.ndarray, ridge: float, seed: int) -> float:
    """Squared error of rows that a fit has not seen, five folds, each fit in the primal."""
    total, error = (features**2).sum(), 0.0
    fold = np.random.default_rng(seed).permutation(len(target)) % 5
    for k in range(5):
        fitted = fold != k
        w = primal_ridge(features[fitted], target[fitted], np.ones(fitted.sum()), ridge * total)
        error += ((features[~fitted] @ w - target[~fitted]) ** 2).sum()
    return error


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_the_ridge_has_the_smallest_held_out_error(noise: float) -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(80, 10))
    target = features @ rng.normal(size=10) * 0.1 + rng.normal(size=80) * noise
    _, ridge = dual_coefficients(features, target, np.ones(80), seed=3)
    assert ridge == min(RIDGES, key=lambda one: held_out(features, target, one, seed=3))
    assert ridge == (min(RIDGES) if noise == 0 else max(RIDGES))


def test_the_gain_is_the_mean_over_datasets_with_its_error() -> None:
    before = [RNG.random(10), RNG.random(40) + 1]
    after = [RNG.random(10), RNG.random(40)]
    gain, error = paired_gain(before, after)
    means, squares = [], []
    for old, new in zip(before, after, strict=True):
        falls = [b - a for b, a in zip(old, new, strict=True)]
        mean = sum(falls) / len(falls)
        means.append(mean)
        squares.append(sum((fall - mean) ** 2 for fall in falls) / (len(falls) - 1) / len(falls))
    assert gain == pytest.approx(sum(means) / 2)
    assert error == pytest.approx(math.sqrt(sum(squares)) / 2)


def test_nothing_gained_has_no_error() -> None:
    rows = [RNG.random(10), RNG.random(7)]
    assert paired_gain(rows, rows) == (0.0, 0.0)


def test_the_error_of_the_gain_is_its_spread_over_draws() -> None:
    rng = np.random.default_rng(4)
    gains, errors = [], []
    for _ in range(400):
        gain, error = paired_gain([np.zeros(20), np.zeros(50)], [rng.normal(size=20), 2 * rng.normal(size=50)])
        gains.append(gain)
        errors.append(error)
    assert np.std(gains) == pytest.approx(np.mean(errors), rel=0.1)
