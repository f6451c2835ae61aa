"""Weights against a general convex solver, and the properties the prior was chosen for."""

import cvxpy
import numpy as np
import pytest

from components.ensemble import weights as module
from components.ensemble.weights import STRENGTHS, fit_weights, solve_simplex


def problem(seed: int, rows: int = 80, classes: int = 4, groups: int = 5, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=rows)
    truth = np.eye(classes)[label]
    start = rng.normal(size=(rows, classes)) + 0.5 * truth
    quality = rng.uniform(-0.5, 2, size=groups)[:, None, None]
    return start, scale * (quality * truth + rng.normal(size=(groups, rows, classes))), label


def cvxpy_optimum(start, increments, label, own, strength) -> float:
    w = cvxpy.Variable(len(increments), nonneg=True)
    rows = len(label)
    logits = start + sum(w[k] * increments[k] for k in range(len(increments)))
    loss = cvxpy.sum(cvxpy.log_sum_exp(logits, axis=1)) - cvxpy.sum(
        cvxpy.multiply(np.eye(start.shape[1])[label], logits)
    )
    program = cvxpy.Problem(cvxpy.Minimize(loss / rows + strength * (1 - w[own])), [cvxpy.sum(w) == 1])
    return program.solve(solver=cvxpy.CLARABEL)


def objective(start, increments, label, own, strength, w) -> float:
    logits = start + np.tensordot(w, increments, axes=1)
    losses = [np.log(np.exp(row - row[y]).sum()) for row, y in zip(logits, label, strict=True)]
    return float(np.mean(losses) + strength * (1 - w[own]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("strength", [0.0, 0.02, 0.3])
def test_solution_matches_a_general_convex_solver(seed, strength):
    start, increments, label = problem(seed, scale=[0.1, 1.0, 5.0][seed % 3])
    offset, slopes = module._against_label(start, increments, label)
    prior = strength * (1 - np.eye(5)[1])
    w = solve_simplex(offset, slopes, prior, np.full(5, 0.2))
    assert w.min() >= 0 and w.sum() == pytest.approx(1, abs=1e-12)
    ours = objective(start, increments, label, 1, strength, w)
    assert ours == pytest.approx(cvxpy_optimum(start, increments, label, 1, strength), abs=1e-5)


def test_the_prior_reaches_the_vertex_exactly_at_the_strength_its_gradient_says():
    offset, slopes = module._against_label(*problem(3))
    vertex = np.eye(5)[0]
    _, gradient, _ = module._derivatives(offset, slopes, vertex)
    needed = gradient[0] - gradient.min()
    assert needed > 0.01
    above = solve_simplex(offset, slopes, 1.001 * needed * (1 - vertex), np.full(5, 0.2))
    below = solve_simplex(offset, slopes, 0.9 * needed * (1 - vertex), np.full(5, 0.2))
    np.testing.assert_array_equal(above, vertex)
    assert below[0] < 1


def test_identical_adapters_and_adapters_that_add_nothing_are_no_obstacle():
    start, increments, label = problem(0)
    same = np.repeat(increments[:1], 4, axis=0)
    assert fit_weights(start, same, label, 2, 0).weights[2] == 1  # no gain by cross-validation: the strongest prior
    nothing = fit_weights(start, np.zeros_like(same), label, 3, 0)
    np.testing.assert_array_equal(nothing.weights, [0, 0, 0, 1])
    start_alone = fit_weights(start, np.zeros_like(same)[:1], label, 0, 0)
    assert nothing.temperature == start_alone.temperature
    assert nothing.loss_after == pytest.approx(start_alone.loss_after, abs=1e-12)


def test_nearly_identical_adapters_reach_the_gap():
    start, increments, label = problem(1, groups=6)
    close = increments[:1] + 1e-4 * increments
    offset, slopes = module._against_label(start, close, label)
    w = solve_simplex(offset, slopes, np.zeros(6), np.full(6, 1 / 6))
    assert objective(start, close, label, 0, 0, w) <= cvxpy_optimum(start, close, label, 0, 0) + 1e-7


@pytest.mark.parametrize("scale", [10.0, 150.0])
def test_few_rows_with_large_logits_reach_the_gap(scale):
    for seed in range(10):
        start, increments, label = problem(seed, rows=12, classes=3, groups=3, scale=scale)
        offset, slopes = module._against_label(scale * start, increments, label)
        w = solve_simplex(offset, slopes, np.zeros(3), np.full(3, 1 / 3))
        least = cvxpy_optimum(scale * start, increments, label, 0, 0)
        assert objective(scale * start, increments, label, 0, 0, w) <= least + 1e-6 * scale


def test_many_classes_and_groups():
    start, increments, label = problem(5, rows=150, classes=30, groups=8)
    offset, slopes = module._against_label(start, increments, label)
    w = solve_simplex(offset, slopes, np.zeros(8), np.eye(8)[7])
    assert objective(start, increments, label, 0, 0, w) <= cvxpy_optimum(start, increments, label, 0, 0) + 1e-5


def cvxpy_shares(start, increments, label, own, strength) -> np.ndarray:
    """Weights divided by the temperature: non-negative, and at most one in all."""
    u = cvxpy.Variable(len(increments), nonneg=True)
    logits = cvxpy.sum(u) * start + sum(u[k] * increments[k] for k in range(len(increments)))
    right = np.eye(start.shape[1])[label]
    loss = (cvxpy.sum(cvxpy.log_sum_exp(logits, axis=1)) - cvxpy.sum(cvxpy.multiply(right, logits))) / len(label)
    others = cvxpy.sum(u) - u[own]
    limits = [cvxpy.sum(u) <= 1, *([others == 0] if np.isinf(strength) else [])]
    cvxpy.Problem(cvxpy.Minimize(loss + (0 if np.isinf(strength) else strength) * others), limits).solve(
        solver=cvxpy.CLARABEL
    )
    return np.clip(u.value, 0, None)


def test_cross_validated_weights_and_temperature_are_those_of_a_plain_loop():
    start, increments, label = problem(2, scale=3.0)
    label = np.where(np.arange(80) % 3 == 0, (label + 1) % 4, label)  # which the logits are surer of than is right
    row = fit_weights(start, increments, label, 4, seed=7)
    assert row.loss_before == pytest.approx(objective(start, increments, label, 4, 0, np.eye(5)[4]), abs=1e-12)
    fold = np.random.default_rng(7).permutation(80) % 5
    by_strength = []
    for strength in STRENGTHS:
        total = 0.0
        for k in range(5):
            keep, held = fold != k, fold == k
            u = cvxpy_shares(start[keep], increments[:, keep], label[keep], 4, strength)
            cold = (u.sum() - 1) * start[held]  # sum(u) z* + sum u_k D_k, as the objective takes it
            total += held.sum() * objective(start[held] + cold, increments[:, held], label[held], 0, 0, u)
        by_strength.append(total / 80)
    assert row.loss_after == pytest.approx(min(by_strength), abs=1e-5)
    assert row.strength == STRENGTHS[int(np.argmin(by_strength))]
    shares = cvxpy_shares(start, increments, label, 4, row.strength)
    assert row.temperature == pytest.approx(1 / shares.sum(), rel=1e-2) and row.temperature > 1.2
    np.testing.assert_allclose(row.weights, shares / shares.sum(), atol=1e-2)


def test_the_temperature_undoes_overconfidence_and_never_sharpens():
    rng = np.random.default_rng(1)
    sound = rng.normal(size=(20_000, 3))
    label = (rng.gumbel(size=sound.shape) + sound).argmax(axis=1)  # drawn with the probabilities that the logits say
    start = np.zeros_like(sound)
    for factor, temperature in ((2.5, 2.5), (1.0, 1.0), (0.5, 1.0)):
        row = fit_weights(start, factor * sound[None], label, 0, 0)
        assert row.temperature == pytest.approx(temperature, rel=0.03)
    blind = fit_weights(start, rng.normal(size=(1, *sound.shape)) * 5, label, 0, 0)
    assert blind.temperature > 30, "answers that know nothing are all but alike"
    np.testing.assert_array_equal(blind.weights, [1])


def test_a_better_neighbour_takes_the_weight_and_noise_does_not():
    rng = np.random.default_rng(0)
    label = rng.integers(3, size=300)
    truth = np.eye(3)[label]
    start = np.zeros((300, 3))
    poor, good, noise = 0.1 * truth, 2 * truth + rng.normal(size=(300, 3)), rng.normal(size=(300, 3))
    neighbour = fit_weights(start, np.stack([poor, good]), label, first=0, seed=0)
    assert neighbour.weights[1] > 0.5 and neighbour.loss_after < neighbour.loss_before - 0.2
    alone = fit_weights(start, np.stack([good, good + 4 * noise]), label, first=0, seed=0)
    np.testing.assert_array_equal(alone.weights, [1, 0])


def test_one_group_and_too_few_rows_give_the_own_adapter():
    start, increments, label = problem(0)
    row = fit_weights(start, increments[:1], label, 0, 0)
    np.testing.assert_array_equal(row.weights, [1])
    assert row.strength == float("inf") and row.temperature >= 1
    few = fit_weights(start[:4], increments[:, :4], label[:4], 2, 0)
    np.testing.assert_array_equal(few.weights, [0, 0, 1, 0, 0])
    assert few.temperature == 1 and few.loss_after == few.loss_before


def test_wrong_inputs_are_refused():
    start, increments, label = problem(0)
    with pytest.raises(ValueError, match="shapes"):
        fit_weights(start[:-1], increments, label, 0, 0)
    with pytest.raises(ValueError, match="labels"):
        fit_weights(start, increments, label + 1, 0, 0)
    with pytest.raises(ValueError, match="finite"):
        fit_weights(start, np.where(increments > 1, np.nan, increments), label, 0, 0)
    with pytest.raises(ValueError, match="first is 5"):
        fit_weights(start, increments, label, 5, 0)
