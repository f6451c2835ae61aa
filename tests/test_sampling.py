"""Rows chosen by their hash, and how many of them."""

import numpy as np
import pytest

from components.config import RunConfig
from components.sampling import feature_rows, sample_rows

ROWS = np.sort(np.random.default_rng(0).choice(2**62, 500, replace=False)).astype(np.int64)


def test_positions_are_ascending_and_distinct() -> None:
    chosen = sample_rows(ROWS, 100, seed=3)
    assert len(chosen) == 100
    assert (np.diff(chosen) > 0).all()
    assert chosen[-1] < 500


@pytest.mark.parametrize("count", [500, 501, 10_000])
def test_few_rows_are_all_taken(count: int) -> None:
    assert sample_rows(ROWS, count, seed=3).tolist() == list(range(500))


def test_the_order_of_rows_does_not_matter() -> None:
    order = np.random.default_rng(1).permutation(500)
    shuffled = ROWS[order]
    assert sorted(shuffled[sample_rows(shuffled, 50, seed=3)]) == sorted(ROWS[sample_rows(ROWS, 50, seed=3)])


def test_new_rows_push_out_as_many_as_they_take_and_no_more() -> None:
    new = np.arange(1, 41, dtype=np.int64) * 1_000_003
    grown = np.sort(np.concatenate([ROWS, new]))
    before = set(ROWS[sample_rows(ROWS, 100, seed=3)].tolist())
    after = set(grown[sample_rows(grown, 100, seed=3)].tolist())
    joined = after & set(new.tolist())
    assert 0 < len(joined) < 20
    assert after - joined < before  # no old row came in
    assert len(before - after) == len(joined)


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    assert set(sample_rows(ROWS, 50, seed=3)) < set(sample_rows(ROWS, 100, seed=3))


def test_the_seed_decides() -> None:
    same, other = sample_rows(ROWS, 100, seed=3), sample_rows(ROWS, 100, seed=4)
    assert (same == sample_rows(ROWS, 100, seed=3)).all()
    assert 5 < len(set(same) & set(other)) < 40  # 20 expected of independent choices


def test_every_row_is_about_as_likely() -> None:
    picked = np.zeros(500)
    for seed in range(200):
        picked[sample_rows(ROWS, 100, seed)] += 1
    assert abs(picked.mean() - 40) < 1e-9
    assert 3.5 < picked.std() < 9  # binomial: sqrt(200 * 0.2 * 0.8) = 5.7


@pytest.mark.parametrize(
    ("setting", "train_rows", "epochs", "warm_epochs", "expected"),
    [
        (123, 1_000_000, 3, 1, 123),
        ("auto", 1_000, 3, 1, 200),  # 150 - 2 * 400
        ("auto", 4_000, 3, 1, 200),  # 600 - 2 * 400
        ("auto", 10_000, 3, 1, 350),  # (1500 - 2 * 400) / 2: warm start and look-ahead
        ("auto", 10_000, 3, 2, 200),  # 1500 - 2 * 800
        ("auto", 10_000, 3, 0, 750),
    ],
)
def test_rows_that_get_features(
    setting: int | str, train_rows: int, epochs: int, warm_epochs: float, expected: int
) -> None:
    config = RunConfig.model_validate(
        {
            "model": {"id": "base"},
            "datasets": [{"name": "a", "path": "a"}],
            "gradients": {"samples_per_dataset": setting},
            "training": {"epochs": epochs},
            "warm_start": {"epochs": warm_epochs},
        }
    )
    assert feature_rows(config, train_rows) == expected
