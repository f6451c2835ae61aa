import logging

import numpy as np
import pytest

from components.errors import UserError
from components.subsets import choose_subsets


def pair_counts(subsets: np.ndarray) -> np.ndarray:
    counts = subsets.astype(int).T @ subsets.astype(int)
    return np.asarray(counts[np.triu_indices(subsets.shape[1], k=1)])


def test_few_datasets_give_every_subset_once() -> None:
    subsets = choose_subsets(4, count=3, size_share=0.3, pair_coverage=5, exhaustive_up_to=4, seed=0)
    assert subsets.dtype == bool
    assert {tuple(row) for row in subsets.tolist()} == {
        (a, b, c, d) for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1) if a + b + c + d
    }
    assert len(subsets) == 15


def test_one_dataset_is_one_subset() -> None:
    assert choose_subsets(1, 3, 0.3, 5, 12, 0).tolist() == [[True]]


@pytest.mark.parametrize(("n", "share"), [(13, 0.3), (30, 0.2), (16, 0.5)])
def test_many_datasets_are_sampled_with_every_pair_covered(n: int, share: float) -> None:
    subsets = choose_subsets(n, count=200, size_share=share, pair_coverage=5, exhaustive_up_to=12, seed=3)
    sampled = subsets[: -n - 1]
    assert len(sampled) == 200
    assert (sampled.sum(1) == round(share * n)).all()
    assert pair_counts(sampled).min() >= 5
    assert np.array_equal(subsets[-n - 1 : -1], np.eye(n, dtype=bool))
    assert subsets[-1].all()
    assert len(np.unique(subsets, axis=0)) == len(subsets)


def test_coverage_is_more_even_than_a_uniform_sample() -> None:
    sampled = choose_subsets(20, 100, 0.3, 1, 12, seed=0)[:100]
    rng = np.random.default_rng(0)
    uniform = np.zeros((100, 20), bool)
    for row in uniform:
        row[rng.choice(20, 6, replace=False)] = True
    assert pair_counts(sampled).std() < pair_counts(uniform).std() / 2


def test_the_count_grows_for_the_coverage_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        subsets = choose_subsets(20, count=10, size_share=0.3, pair_coverage=5, exhaustive_up_to=12, seed=0)
    sampled = subsets[:-21]
    assert pair_counts(sampled).min() >= 5
    # 190 pairs, 15 a subset: 64 are the least
    assert 64 <= len(sampled) <= 90
    assert f"estimating {len(sampled)} subsets, not surrogate.subsets = 10" in caplog.text


def test_no_more_subsets_than_there_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        subsets = choose_subsets(6, count=400, size_share=0.5, pair_coverage=4, exhaustive_up_to=5, seed=0)
    assert len(subsets) == 20 + 6 + 1
    assert (pair_counts(subsets[:20]) == 4).all()
    assert "no more subsets of 3 exist" in caplog.text


def test_a_coverage_that_cannot_be_is_an_error() -> None:
    with pytest.raises(UserError, match="in only 1 subsets of 2"):
        choose_subsets(13, count=100, size_share=0.1, pair_coverage=5, exhaustive_up_to=12, seed=0)


def test_the_seed_decides() -> None:
    first, again, other = (choose_subsets(14, 60, 0.3, 2, 12, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
