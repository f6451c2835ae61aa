"""The sample of subsets: sizes, coverage, partitions of the same shape."""

import numpy as np

from components.validation.subsets import choose_sample, random_partitions, spectral_groups

NAMES = [f"d{i}" for i in range(12)]
GROUPS = [NAMES[:5], NAMES[5:9], NAMES[9:]]


def block_affinity() -> np.ndarray:
    """Datasets of a group help each other."""
    label = np.array([k for k, group in enumerate(GROUPS) for _ in group])
    return np.where(label[:, None] == label, 1.0, -0.5) + 0.1 * np.random.default_rng(0).normal(size=(12, 12))


def sample(subsets: int = 10, **more: int):
    settings = {"pairs": 4, "partitions": 2, "seed": 3} | more
    return choose_sample(NAMES, GROUPS, block_affinity(), size_share=0.3, subsets=subsets, **settings)


def test_random_subsets_are_of_one_size_and_pairs_are_pairs() -> None:
    found = sample()
    assert [len(subset) for subset in found.random] == [4] * 10
    assert [len(subset) for subset in found.pairs] == [2] * 4
    assert len({tuple(subset) for subset in found.random}) == 10
    seen = [sum(name in subset for subset in found.random) for name in NAMES]
    assert max(seen) - min(seen) <= 3  # balanced


def test_every_partition_holds_every_dataset_once() -> None:
    found = sample()
    assert set(found.partitions) == {"chosen", "one", "each", "spectral", "random-0", "random-1"}
    for partition in found.partitions.values():
        assert sorted(name for group in partition for name in group) == sorted(NAMES)
    assert found.partitions["chosen"] == GROUPS
    for k in (0, 1):
        assert sorted(map(len, found.partitions[f"random-{k}"])) == [3, 4, 5]
    assert found.partitions["random-0"] != found.partitions["random-1"]


def test_each_subset_is_one_job_and_a_larger_sample_has_the_smaller_ones() -> None:
    few, many = sample(5), sample(10)
    jobs = many.jobs()
    assert len({tuple(inside) for inside in jobs.values()}) == len(jobs)
    wanted = [*many.random, *many.pairs, *(group for partition in many.partitions.values() for group in partition)]
    assert {tuple(inside) for inside in jobs.values()} == {tuple(inside) for inside in wanted}
    assert {tuple(one) for one in few.jobs().values()} <= {tuple(one) for one in jobs.values()}


def test_one_group_or_a_group_each_has_no_other_of_its_shape() -> None:
    for groups in ([NAMES], [[name] for name in NAMES]):
        found = choose_sample(NAMES, groups, block_affinity(), size_share=0.3, subsets=3, pairs=0, partitions=2, seed=0)
        assert set(found.partitions) == {"chosen", "one", "each"}


def test_random_partitions_end_where_there_are_no_more() -> None:
    found = random_partitions([["a", "b"], ["c"]], ["a", "b", "c"], 9, np.random.default_rng(0))
    assert sorted(found) == [[["a"], ["b", "c"]], [["a", "c"], ["b"]]]


def test_spectral_clustering_finds_the_blocks() -> None:
    assert spectral_groups(NAMES, block_affinity(), 3, seed=0) == GROUPS
