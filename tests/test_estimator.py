import numpy as np
import pytest
from scipy.optimize import minimize
from torch.utils.flop_counter import FlopCounterMode

from components import solver
from components.errors import UserError
from components.estimator import GroupEstimator, halves_of, parts_of
from components.tables import Features

TRAIN_ROWS, VALIDATION_ROWS, DIM = (14, 30, 20), (31, 50, 24), 10
LAMBDAS = [1000, 300, 100, 30, 10, 3, 1]
TIMES = np.array([20.0, 90.0, 60.0])
MEMBERS = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1) if a + b + c], bool)
EVERY = range(len(MEMBERS))


def make() -> tuple[list[Features], list[Features]]:
    rng = np.random.default_rng(4)
    splits: tuple[list[Features], list[Features]] = ([], [])
    for i, counts in enumerate(zip(TRAIN_ROWS, VALIDATION_ROWS, strict=True)):
        centre = rng.normal(size=DIM) * 0.2
        for tables, rows in zip(splits, counts, strict=True):
            features = (rng.normal(size=(rows, DIM)) + centre) * (1 + i)
            row = rng.integers(0, 2**63 - 1, rows)
            margin = rng.normal(size=rows)
            tables.append(Features(row, features.astype(np.float32), margin.astype(np.float32)))
    return splits


def reference_weights(train: list[Features], subset: np.ndarray, lam: float) -> np.ndarray:
    """One subset and one lambda by scipy, in float64."""
    inside = [table for table, held in zip(train, subset, strict=True) if held]

    def objective(w: np.ndarray) -> float:
        losses = [np.logaddexp(0, -(t.margin + t.features.astype(np.float64) @ w)).mean() for t in inside]
        return float(np.mean(losses) + lam / 2 * w @ w)

    def gradient(w: np.ndarray) -> np.ndarray:
        pulls = [t.features.T @ (1 / (1 + np.exp(t.margin + t.features @ w))) / len(t.row) for t in inside]
        return np.asarray(lam * w - np.mean(pulls, axis=0))

    options = {"ftol": 1e-15, "gtol": 1e-9}
    return np.asarray(minimize(objective, np.zeros(DIM), jac=gradient, method="L-BFGS-B", options=options).x)


@pytest.fixture(scope="module")
def tables() -> tuple[list[Features], list[Features]]:
    return make()


@pytest.fixture(scope="module")
def estimator(tables: tuple[list[Features], list[Features]]) -> GroupEstimator:
    return GroupEstimator(*tables, LAMBDAS, TIMES, seed=5, names=["a", "b", "c"])


def test_a_subsets_path_ends_where_its_training_does(
    tables: tuple[list[Features], list[Features]], estimator: GroupEstimator
) -> None:
    paths = estimator.lambdas(MEMBERS)
    for k, subset in enumerate(MEMBERS):
        np.testing.assert_allclose(paths[:, k], np.array(LAMBDAS) / TIMES[subset].sum())
    forever = GroupEstimator(*tables, LAMBDAS, 1e9 * TIMES, seed=5).lambdas(MEMBERS)
    norms = np.concatenate([(table.features.astype(np.float64) ** 2).sum(1) for table in tables[0]])
    np.testing.assert_allclose(forever, 1e-4 * norms.mean())


def test_estimates_are_those_of_one_solve_at_a_time(
    tables: tuple[list[Features], list[Features]], estimator: GroupEstimator
) -> None:
    train, validation = tables
    estimates = estimator.solve(MEMBERS)
    for k, subset in enumerate(MEMBERS):
        weights = [reference_weights(train, subset, lam) for lam in estimator.lambdas(subset[None])[:, 0]]
        losses = np.full((len(LAMBDAS), 3, 3), np.nan)  # lambda, rows that chose, dataset
        for at, w in enumerate(weights):
            for i in np.flatnonzero(subset):
                rows = np.logaddexp(0, -(validation[i].margin + validation[i].features.astype(np.float64) @ w))
                half = estimator.halves[i]
                losses[at, :, i] = rows.mean(), rows[~half].mean(), rows[half].mean()
        for a in range(3):
            best = int(np.nanmean(losses[:, a], axis=1).argmin())
            assert estimates.lambda_index[0, a, k] == best
            np.testing.assert_allclose(estimates.loss[a, k], losses[best, a], atol=2e-4)
        np.testing.assert_allclose(estimates.weights[k], weights[estimates.lambda_index[0, 0, k]], atol=5e-3)
    # otherwise the test would not see a wrong choice
    assert all(
        (estimates.lambda_index[0, a] != estimates.lambda_index[0, b]).any() for a, b in ((0, 1), (0, 2), (1, 2))
    )


def test_parts_are_estimators_of_larger_features_whose_losses_are_averaged(
    tables: tuple[list[Features], list[Features]], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = GroupEstimator(*tables, LAMBDAS, TIMES, seed=5, width=4)
    assert parts.parts == [slice(0, 5), slice(5, 10)]
    alone = []
    for columns in parts.parts:
        larger = [
            [Features(t.row, np.sqrt(2, dtype=np.float32) * t.features[:, columns], t.margin) for t in split]
            for split in tables
        ]
        alone.append(GroupEstimator(*larger, LAMBDAS, TIMES, seed=5))
    found, expected = parts.solve(MEMBERS), [one.solve(MEMBERS) for one in alone]
    np.testing.assert_allclose(found.loss, np.mean([one.loss for one in expected], axis=0), atol=2e-4)
    assert np.array_equal(found.lambda_index, np.concatenate([one.lambda_index for one in expected]))
    assert (expected[0].lambda_index != expected[1].lambda_index).any()  # each chooses for itself
    slow = [one.row_losses(MEMBERS) for one in alone]
    for k, rows in enumerate(parts.row_losses(MEMBERS)):
        for i, losses in rows.items():
            np.testing.assert_allclose(losses, np.mean([one[k][i] for one in slow], axis=0), atol=1e-3)
    change = tables[1][1].features @ found.weights.T  # the mean of the parts' changes of a margin
    each = [
        np.sqrt(2) * tables[1][1].features[:, columns] @ one.weights.T
        for columns, one in zip(parts.parts, expected, strict=True)
    ]
    np.testing.assert_allclose(change, np.mean(each, axis=0), atol=2e-2)
    calls: list[tuple[int, int]] = []
    monkeypatch.setitem(solver.CELLS, "cpu", 200)
    parts.solve(MEMBERS, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (7, 7) and calls == sorted(calls)


def test_parts_are_as_near_to_the_width_as_an_even_division_comes() -> None:
    assert parts_of(10, None) == parts_of(10, 20) == parts_of(10, 7) == [slice(0, 10)]
    assert [one.stop - one.start for one in parts_of(10, 3)] == [3, 3, 4]
    assert parts_of(2400, 400)[-1] == slice(2000, 2400) and len(parts_of(2400, 400)) == 6


def test_losses_are_missing_exactly_outside_the_subset(estimator: GroupEstimator) -> None:
    loss = estimator.solve(MEMBERS).loss
    assert loss.shape == (3, 7, 3)
    assert np.array_equal(np.isnan(loss), np.broadcast_to(~MEMBERS, loss.shape))


def test_row_losses_average_to_the_table(estimator: GroupEstimator) -> None:
    estimates = estimator.solve(MEMBERS)
    rows = estimator.row_losses(MEMBERS)
    for k in EVERY:
        assert sorted(rows[k]) == np.flatnonzero(MEMBERS[k]).tolist()
        for i, losses in rows[k].items():
            half = estimator.halves[i]
            assert losses.shape == (3, VALIDATION_ROWS[i])
            means = [losses[0].mean(), losses[1][~half].mean(), losses[2][half].mean()]
            np.testing.assert_allclose(means, estimates.loss[:, k, i], atol=1e-5)


def test_flops_are_those_that_torch_counts() -> None:
    """But for what is small beside the features: they are wide and many here, unlike in the other tests."""
    rng = np.random.default_rng(0)

    def table(rows: int, margin: float) -> Features:
        features = rng.normal(size=(rows, 120)) + 0.3
        margins = rng.normal(size=rows) + margin
        return Features(np.arange(rows), features.astype(np.float32), margins.astype(np.float32))

    def counted(margin: float) -> tuple[int, float]:
        train, validation = ([table(rows, margin) for rows in (500, 300, 400)] for _ in range(2))
        with FlopCounterMode(display=False) as counter:
            estimator = GroupEstimator(train, validation, LAMBDAS, TIMES, seed=5, width=60)
            estimator.solve(MEMBERS)
            solved = estimator.flops
            estimator.row_losses(MEMBERS[:2])
        assert estimator.flops > solved
        return estimator.flops, counter.get_total_flops()

    for margin in (0.0, -30.0):  # where rows are surely wrong steps overshoot, which takes a product more
        ours, torchs = counted(margin)
        assert ours == pytest.approx(torchs, rel=0.005)


def test_chunks_repeats_and_order_do_not_matter(
    tables: tuple[list[Features], list[Features]], estimator: GroupEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = estimator.solve(MEMBERS)
    order = [6, 2, 2, 0]
    monkeypatch.setitem(solver.CELLS, "cpu", 200)
    calls: list[tuple[int, int]] = []
    some = estimator.solve(MEMBERS[order], progress=lambda done, total: calls.append((done, total)))
    assert np.array_equal(some.lambda_index, whole.lambda_index[:, :, order])
    np.testing.assert_allclose(some.loss, whole.loss[:, order], atol=2e-4)
    np.testing.assert_allclose(some.loss[:, 1], some.loss[:, 2], atol=2e-4)
    assert calls[-1] == (4, 4)
    assert len(calls) > 1
    assert len(estimator.row_losses(MEMBERS[order])) == 4


def test_halves_are_balanced_and_fixed_by_row_and_seed() -> None:
    row = np.random.default_rng(0).integers(0, 2**63 - 1, 1001)
    half = halves_of(row, 0)
    assert half.sum() == 500
    shuffled = np.random.default_rng(1).permutation(1001)
    assert np.array_equal(halves_of(row[shuffled], 0), half[shuffled])
    assert 400 < (half != halves_of(row, 1)).sum() < 600
    assert halves_of(np.arange(2), 0).sum() == 1
    consecutive = halves_of(np.arange(1000), 7)
    assert 200 < consecutive[:500].sum() < 300


def test_a_dataset_without_two_validation_rows_is_named(tables: tuple[list[Features], list[Features]]) -> None:
    train, validation = tables
    short = Features(validation[1].row[:1], validation[1].features[:1], validation[1].margin[:1])
    with pytest.raises(UserError) as error:
        GroupEstimator(train, [validation[0], short, validation[2]], LAMBDAS, TIMES, seed=0, names=["a", "b", "c"])
    assert error.value.problems == ("b: 1",)
