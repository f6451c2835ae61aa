"""Curve, standard errors, the rule for m, and the cross-fitted gain, each against a slow loop."""

import numpy as np
import pytest

from components.partition.choose import Comparison, compare, cross_fitted_gain, resample_counts

random = np.random.default_rng(0)
ROWS = [[random.random(size) for size in (30, 50)] for _ in range(3)]


def test_loss_is_the_mean_over_datasets_of_the_mean_over_rows() -> None:
    expected = [(a.mean() + b.mean()) / 2 for a, b in ROWS]
    np.testing.assert_allclose(compare(ROWS, resamples=5, seed=0).loss, expected)


def test_resamples_draw_rows_within_a_dataset_and_the_same_for_every_partition() -> None:
    comparison = compare(ROWS, resamples=7, seed=3)
    counts = resample_counts([30, 50], 7, 3)
    for p, rows in enumerate(ROWS):
        for b in range(7):
            drawn = [np.repeat(losses, count[b].astype(int)) for losses, count in zip(rows, counts, strict=True)]
            assert [len(d) for d in drawn] == [30, 50]
            assert comparison.resampled[p, b] == pytest.approx(np.mean([d.mean() for d in drawn]))


def test_standard_error_is_that_of_the_paired_difference() -> None:
    comparison = compare(ROWS, resamples=4000, seed=0)
    errors = comparison.standard_error(1)
    assert errors[1] == 0
    for p in (0, 2):
        slow = np.std([comparison.resampled[p, b] - comparison.resampled[1, b] for b in range(4000)])
        assert errors[p] == pytest.approx(slow)
        by_formula = np.sqrt(sum((x - y).var() / len(x) for x, y in zip(ROWS[p], ROWS[1], strict=True))) / 2
        assert errors[p] == pytest.approx(by_formula, rel=0.05)


def test_what_is_hard_about_a_row_cancels() -> None:
    shifted = [[losses + 0.1 for losses in ROWS[0]], ROWS[0]]
    comparison = compare(shifted, resamples=50, seed=0)
    np.testing.assert_allclose(comparison.standard_error(1), 0, atol=1e-12)
    assert comparison.smallest_within_one() == 1


@pytest.mark.parametrize(("spread", "expected"), [(0.05, 2), (0.25, 1), (2.0, 0)])
def test_the_smallest_m_within_one_standard_error(spread: float, expected: int) -> None:
    loss = np.array([1.0, 0.6, 0.4, 0.5])
    wiggle = np.array([1.0, 1.0, 0.0, 1.0])[:, None] * np.array([spread, -spread])
    assert Comparison(loss, loss[:, None] + wiggle).smallest_within_one() == expected


def test_equal_losses_take_the_first_despite_rounding() -> None:
    loss = np.array([1.0 + 1e-15, 1.0, 1.0 - 1e-15])
    assert Comparison(loss, np.repeat(loss[:, None], 4, axis=1)).smallest_within_one() == 0


def test_cross_fitted_gain_by_definition() -> None:
    chosen, one = [ROWS[0], ROWS[1]], [ROWS[2], ROWS[2]]
    mean, error = cross_fitted_gain(chosen, one)
    halves = [np.mean([(o - c).mean() for c, o in zip(ROWS[h], ROWS[2], strict=True)]) for h in (0, 1)]
    assert mean == pytest.approx(np.mean(halves))
    variance = 0.0
    for h in (0, 1):
        for c, o in zip(ROWS[h], ROWS[2], strict=True):
            variance += ((o - c) - (o - c).mean()).dot((o - c) - (o - c).mean()) / (len(c) - 1) / len(c) / 2**2 / 2**2
    assert error == pytest.approx(np.sqrt(variance))


def test_the_gain_of_choosing_nothing_is_nothing() -> None:
    assert cross_fitted_gain([ROWS[0], ROWS[1]], [ROWS[0], ROWS[1]]) == (0.0, 0.0)


def test_resamples_depend_on_the_seed_alone() -> None:
    first, again, other = (resample_counts([20, 20], 3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])
