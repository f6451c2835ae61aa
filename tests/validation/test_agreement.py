"""Correlations, reliability and intervals against slow references and planted truths."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from components.tables import Features, mean_pulls
from components.validation.agreement import (
    Cells,
    advantage,
    agreement,
    correlation,
    dataset_mean,
    noise_error,
    relative_error,
    reliability,
    with_interval,
)
from components.validation.predictors import by_similarity, constant, shifted
from tests.validation.planted import planted, random_subsets

SIZES = {"subsets": 30, "n": 8, "size": 3, "seeds": 3}


def slow_centred(cells: Cells, values: np.ndarray) -> list[float]:
    """One cell after the other, dataset by dataset."""
    found = []
    for i in range(cells.members.shape[1]):
        own = [float(values[k, i]) for k in range(len(values)) if cells.members[k, i]]
        found += [value - sum(own) / len(own) for value in own]
    return found


def slow_reliability(cells: Cells) -> float:
    """One-way analysis of variance with every sum written out, pooled over datasets."""
    between = within = 0.0
    groups = runs = 0
    for i in range(cells.members.shape[1]):
        rows = [cells.true[k, :, i] for k in range(len(cells.true)) if cells.members[k, i]]
        grand = sum(row.mean() for row in rows) / len(rows)
        for row in rows:
            between += len(row) * (row.mean() - grand) ** 2
            within += sum((value - row.mean()) ** 2 for value in row)
            runs += len(row) - 1
        groups += len(rows) - 1
    return 1 - (within / runs) / (between / groups)


def test_correlations_and_reliability_are_those_of_slow_loops() -> None:
    cells = planted(correlation=0.7, reliability=0.6, seed=3, **SIZES)
    pair = slow_centred(cells, cells.predicted["ours"]), slow_centred(cells, cells.true.mean(axis=1))
    assert correlation(cells, "ours", ranks=False) == pytest.approx(pearsonr(*pair).statistic)
    assert correlation(cells, "ours", ranks=True) == pytest.approx(spearmanr(*pair).statistic)
    assert reliability(cells) == pytest.approx(slow_reliability(cells))


@pytest.mark.parametrize(("truth", "share"), [(0.9, 0.5), (0.4, 0.8)])
def test_planted_truths_are_found(truth: float, share: float) -> None:
    cells = planted(correlation=truth, reliability=share, subsets=3000, n=10, size=4, seeds=3, seed=1)
    assert reliability(cells) == pytest.approx(share, abs=0.02)
    found = agreement(cells, "ours", resamples=20, seed=0)
    assert found.pearson is not None and found.corrected_pearson is not None and found.corrected_spearman is not None
    assert found.pearson.value == pytest.approx(truth * share**0.5, abs=0.02)
    assert found.corrected_pearson.value == pytest.approx(truth, abs=0.03)
    assert found.corrected_spearman.value == pytest.approx(truth, abs=0.06)


def test_intervals_hold_the_planted_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(40):
        cells = planted(correlation=0.7, reliability=0.8, seed=seed, **SIZES)
        found = agreement(cells, "ours", resamples=60, seed=seed).corrected_pearson
        assert found is not None and found.low < found.value <= found.high
        held += found.low <= 0.7 <= found.high
    assert 32 <= held <= 40


def test_the_reliabilitys_interval_is_not_lowered_by_subsets_drawn_twice() -> None:
    cells = planted(correlation=0.7, reliability=0.7, seed=0, subsets=24, n=12, size=4, seeds=3)
    rng, draws = np.random.default_rng(0), []
    assert reliability(cells.resample(rng)) != reliability(cells)
    for _ in range(400):
        drawn = cells.resample(rng)
        draws.append([1 / (1 - reliability(drawn)), 1 / (1 - reliability(replace(drawn, resampled=False)))])
    ours, naive = np.mean(draws, axis=0) * (1 - reliability(cells))  # the spread between subsets, by the true one
    assert ours == pytest.approx(1, abs=0.1) and naive < ours - 0.1


def test_each_dataset_counts_alike_however_much_its_losses_differ() -> None:
    cells = planted(correlation=0.7, reliability=0.9, seed=3, **SIZES)
    own = [correlation(cells.of_dataset(i), "ours", ranks=False) for i in range(SIZES["n"])]
    assert dataset_mean(cells, "ours") == pytest.approx(np.mean(own))
    scale = np.r_[100.0, np.ones(SIZES["n"] - 1)]
    louder = Cells(cells.members, cells.true * scale, {"ours": cells.predicted["ours"] * scale})
    assert dataset_mean(louder, "ours") == pytest.approx(np.mean(own))
    assert correlation(louder, "ours", ranks=False) == pytest.approx(own[0], abs=0.01)  # it is all that is seen


def test_pure_noise_is_not_taken_for_truth() -> None:
    cells = planted(correlation=0.0, reliability=0.0, seed=2, **SIZES)
    found = with_interval(cells, reliability, resamples=100, seed=0)
    assert found is not None and found.low < 0.2 and found.value < 0.4
    assert agreement(cells, "ours", resamples=100, seed=0).corrected_pearson is None  # too many resamples say nothing


def test_a_constant_is_each_datasets_mean_and_has_no_correlation() -> None:
    cells = planted(correlation=0.7, reliability=0.6, seed=3, **SIZES)
    flat = constant(cells.true, cells.members)
    for i, held in enumerate(cells.members.T):
        assert flat[:, i] == pytest.approx(cells.true[held, :, i].mean())
    known = Cells(cells.members, cells.true, {"flat": flat})
    assert agreement(known, "flat", resamples=10, seed=0).pearson is None


def test_relative_error_is_of_each_datasets_mean() -> None:
    cells = planted(correlation=0.7, reliability=0.6, seed=3, **SIZES)
    errors = []
    for i in range(cells.members.shape[1]):
        rows = [k for k in range(len(cells.true)) if cells.members[k, i]]
        true = [cells.true[k, :, i].mean() for k in rows]
        off = [abs(cells.predicted["ours"][k, i] - value) for k, value in zip(rows, true, strict=True)]
        errors.append(sum(off) / sum(true))
    assert relative_error(cells, "ours") == pytest.approx(np.mean(errors))


def test_shifting_changes_the_error_and_not_the_ranking() -> None:
    cells = planted(correlation=0.7, reliability=0.6, seed=3, **SIZES)
    moved = shifted(cells.predicted["ours"] + 5.0, cells.true, cells.members)
    both = Cells(cells.members, cells.true, {"ours": cells.predicted["ours"], "moved": moved})
    assert correlation(both, "moved", ranks=False) == pytest.approx(correlation(both, "ours", ranks=False))
    assert relative_error(both, "moved") < 0.2


def test_the_better_predictor_is_seen_to_be_better() -> None:
    cells = planted(correlation=0.9, reliability=0.9, seed=5, subsets=60, n=8, size=3, seeds=3)
    noise = np.random.default_rng(0).normal(size=cells.members.shape)
    both = Cells(cells.members, cells.true, {**cells.predicted, "noise": noise})
    gain = advantage(both, "ours", "noise", resamples=100, seed=0)
    assert gain is not None and gain.low > 0.3
    back = advantage(both, "noise", "ours", resamples=100, seed=0)
    assert back is not None and back.value == pytest.approx(-gain.value)


def test_one_dataset_is_its_own_cells() -> None:
    cells = planted(correlation=0.7, reliability=0.6, seed=3, **SIZES)
    own = cells.of_dataset(2)
    assert own.members.shape == (int(cells.members[:, 2].sum()), 1) and own.members.all()
    np.testing.assert_array_equal(own.true[:, :, 0], cells.true[cells.members[:, 2]][:, :, 2])


def test_similarity_prefers_company_of_ones_kind() -> None:
    members = random_subsets(6, 2, 15, seed=0)
    vectors = np.array([[1, 0.1], [1, 0], [1, -0.1], [0, 1], [0.1, 1], [-1, 0]])
    predicted = by_similarity(vectors, members)
    for k, i in np.argwhere(members):
        inside = [vectors[j] for j in np.flatnonzero(members[k])]
        cosines = [v @ vectors[i] / np.linalg.norm(v) / np.linalg.norm(vectors[i]) for v in inside]
        assert predicted[k, i] == pytest.approx(-np.mean(cosines))


def test_a_pull_is_minus_the_gradient_of_the_mean_loss() -> None:
    rng = np.random.default_rng(0)
    table = Features(np.arange(9), rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=9).astype(np.float32))

    def loss(w: np.ndarray) -> float:
        return float(np.logaddexp(0, -(table.margin.astype(float) + table.features.astype(float) @ w)).mean())

    numeric = [(loss(1e-5 * axis) - loss(-1e-5 * axis)) / 2e-5 for axis in np.eye(4)]
    np.testing.assert_allclose(mean_pulls([table])[0], np.negative(numeric), atol=1e-7)


def test_a_perfect_prediction_is_off_by_the_noise_error() -> None:
    rng = np.random.default_rng(0)
    members = rng.random((400, 5)) < 0.5
    expected, noise = 1 + rng.random((400, 5)), np.array([0.01, 0.02, 0.05, 0.1, 0.2])
    true = expected[:, None] + noise * rng.standard_normal((400, 3, 5))
    cells = Cells(members, np.where(members[:, None], true, np.nan), {"perfect": expected})
    assert noise_error(cells) == pytest.approx(relative_error(cells, "perfect"), rel=0.1)
    assert np.isnan(noise_error(Cells(members, cells.true[:, :1], {})))
