"""The order of batches: who is seen how often, and when."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from components.schedule import WINDOW, batch_order


def some_lengths(*sizes: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 200, size).tolist() for size in sizes]


def shown(batches: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [row for batch in batches for row in batch]


def by_dataset(rows: list[tuple[int, int]]) -> list[int]:
    counted = Counter(dataset for dataset, _ in rows)
    return [counted[dataset] for dataset in range(max(counted) + 1)]


@pytest.mark.parametrize(("exponent", "expected"), [(0.0, [128, 128, 128]), (1.0, [32, 96, 256])])
def test_every_epoch_shows_datasets_as_often_as_asked(exponent: float, expected: list[int]) -> None:
    batches = batch_order(some_lengths(32, 96, 256), 3, 16, exponent, seed=1)
    steps = 3 * 384 // 16
    assert len(batches) == steps
    for epoch in range(3):
        seen = by_dataset(shown(batches[epoch * steps // 3 : (epoch + 1) * steps // 3]))
        assert seen == pytest.approx(expected, abs=1.01)  # an epoch here ends where a window does
    assert by_dataset(shown(batches)) == [3 * count for count in expected]


def test_an_exponent_between_is_between() -> None:
    seen = by_dataset(shown(batch_order(some_lengths(100, 400), 1, 10, 0.5, seed=1)))
    assert seen == [167, 333]  # sqrt(100) : sqrt(400) of 500


def test_no_row_comes_again_before_all_have_come() -> None:
    batches = batch_order(some_lengths(10, 70), 4, 8, 0.0, seed=2)
    for end in range(WINDOW, len(batches) + WINDOW, WINDOW):
        counted = Counter(shown(batches[:end]))
        for dataset, size in enumerate((10, 70)):
            times = [counted[dataset, i] for i in range(size)]
            assert max(times) - min(times) <= 1


def test_every_row_of_an_epoch_in_proportion_comes_once() -> None:
    assert sorted(shown(batch_order(some_lengths(13, 40), 1, 8, 1.0, seed=0))) == [
        *((0, i) for i in range(13)),
        *((1, i) for i in range(40)),
    ]


def test_batches_are_full_but_for_the_last_drawn() -> None:
    sizes = Counter(len(batch) for batch in batch_order(some_lengths(50, 57), 1, 10, 0.0, seed=0))
    assert sizes == {10: 10, 7: 1}


@pytest.mark.parametrize(("epochs", "rows"), [(0.5, 50), (1.25, 125), (0.01, 16), (2, 200)])
def test_fractions_of_an_epoch(epochs: float, rows: int) -> None:
    batches = batch_order(some_lengths(40, 60), epochs, 16, 0.0, seed=0)
    assert len(shown(batches)) == rows  # never less than a batch
    assert len(batches) == -(-rows // 16)


def test_the_seed_decides() -> None:
    lengths = some_lengths(40, 60)
    first = batch_order(lengths, 1, 8, 0.0, seed=5)
    assert first == batch_order(lengths, 1, 8, 0.0, seed=5)
    other = batch_order(lengths, 1, 8, 0.0, seed=6)
    assert first != other
    assert sorted(row for row in shown(first) if row[0] == 0) != sorted(row for row in shown(other) if row[0] == 0)


def test_a_tiny_dataset_beside_a_large_one_is_spread_over_the_run() -> None:
    batches = batch_order(some_lengths(4, 396), 1, 10, 0.0, seed=3)
    assert by_dataset(shown(batches)) == [200, 200]
    assert set(Counter(row for row in shown(batches) if row[0] == 0).values()) == {50}
    for start in range(0, 40, WINDOW):
        window = shown(batches[start : start + WINDOW])
        assert sum(dataset == 0 for dataset, _ in window) == pytest.approx(40, abs=1.01)


def test_a_dataset_in_proportion_may_come_once_only() -> None:
    seen = shown(batch_order(some_lengths(1, 199), 1, 10, 1.0, seed=3))
    assert Counter(dataset for dataset, _ in seen) == {0: 1, 1: 199}


def test_rows_of_a_batch_are_of_similar_length() -> None:
    lengths = some_lengths(800)
    batches = batch_order(lengths, 1, 10, 0.0, seed=0)
    padded = sum(len(batch) * max(lengths[d][i] for d, i in batch) for batch in batches)
    rows = shown(batches)
    np.random.default_rng(0).shuffle(rows)
    at_random = [[lengths[d][i] for d, i in rows[start : start + 10]] for start in range(0, 800, 10)]
    wasted = padded - sum(lengths[0])
    assert wasted < 0.2 * (sum(10 * max(batch) for batch in at_random) - sum(lengths[0]))


def test_batches_are_not_in_order_of_length() -> None:
    lengths = some_lengths(80)
    longest = [max(lengths[d][i] for d, i in batch) for batch in batch_order(lengths, 1, 10, 0.0, seed=0)]
    assert any(a > b for a, b in pairwise(longest))
    assert any(a < b for a, b in pairwise(longest))
