"""True results of partitions, by hand; differences against the t-test of scipy."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from components.trials import Trials
from components.validation.partitions import Difference, compare_partitions, difference

NAMES = ["a", "b", "c"]
SUBSETS = [["a", "b"], ["c"], ["a", "b", "c"], ["a"], ["b", "c"], ["b"], ["a", "c"]]
PARTITIONS = {
    "chosen": [["a", "b"], ["c"]],
    "one": [["a", "b", "c"]],
    "random-0": [["a"], ["b", "c"]],
    "random-1": [["a", "c"], ["b"]],
}
ENTROPY = np.array([0.5, 1.0, 2.0])


def trials(seeds: int = 3) -> Trials:
    rng = np.random.default_rng(0)
    members = np.array([[name in subset for name in NAMES] for subset in SUBSETS])
    losses = [np.where(members[:, None], rng.random((len(SUBSETS), seeds, 3)), np.nan) for _ in range(3)]
    return Trials(members, *losses, *(np.ones((len(SUBSETS), seeds)) for _ in range(3)))


def test_each_dataset_counts_under_its_own_groups_adapter() -> None:
    real = trials()
    estimated = np.where(real.members, 0.25, np.nan)
    found = {one.name: one for one in compare_partitions(PARTITIONS, NAMES, real, estimated, ENTROPY)}
    assert list(found) == ["chosen", "one", "random", "random-0", "random-1"]
    own = {"a": 0, "b": 0, "c": 1}  # positions in SUBSETS
    by_seed = [np.mean([real.test[own[name], s, i] / ENTROPY[i] for i, name in enumerate(NAMES)]) for s in range(3)]
    assert found["chosen"].test == pytest.approx(np.mean(by_seed))
    assert found["chosen"].spread == pytest.approx(np.std(by_seed, ddof=1))
    right = [np.mean([real.accuracy[own[name], s, i] for i, name in enumerate(NAMES)]) for s in range(3)]
    assert found["chosen"].accuracy_spread == pytest.approx(np.std(right, ddof=1))
    assert found["chosen"].estimated == pytest.approx(np.mean(0.25 / ENTROPY))
    assert (found["chosen"].adapters, found["one"].adapters, found["random"].adapters) == (2, 1, 2)
    one = [np.mean(real.test[2, s] / ENTROPY) for s in range(3)]
    apart = found["one"].against_chosen
    assert apart is not None and apart.value == pytest.approx(np.mean(one) - np.mean(by_seed))
    assert found["random"].test == pytest.approx((found["random-0"].test + found["random-1"].test) / 2)
    assert found["chosen"].against_chosen is None
    drawn = [found[f"random-{k}"].against_chosen for k in range(2)]
    random = found["random"].against_chosen
    assert random is not None and random.value == pytest.approx(np.mean([one.value for one in drawn if one]))


def test_a_partition_that_is_the_chosen_one_is_not_compared_with_it() -> None:
    same = {"chosen": [["a", "b"], ["c"]], "spectral": [["c"], ["b", "a"]]}
    found = compare_partitions(same, NAMES, trials(), np.ones((len(SUBSETS), 3)), ENTROPY)
    assert [one.against_chosen for one in found] == [None, None]


def test_which_partitions_were_drawn_is_noise_too() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):  # partitions differ more than seeds do
        apart = 0.3 + 0.2 * rng.normal(size=(5, 1)) + 0.05 * rng.normal(size=(1, 4)) + 0.02 * rng.normal(size=(5, 4))
        found = difference(apart)
        held += abs(found.value - 0.3) <= found.noise
    assert 372 <= held <= 392
    assert difference(apart).noise > 2 * difference(apart.mean(axis=0)).noise
    assert difference(np.zeros((2, 3))) == Difference(0.0, 0.0, clear=False)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3])
def test_a_difference_is_clear_where_the_paired_t_test_is_significant(shift: float) -> None:
    rng = np.random.default_rng(1)
    ours, theirs = 0.1 * rng.normal(size=5), 0.1 * rng.normal(size=5) + shift
    found = difference(theirs - ours)
    test = ttest_rel(theirs, ours)
    assert found.clear == (test.pvalue < 0.05)
    interval = test.confidence_interval(0.95)
    assert (found.value - found.noise, found.value + found.noise) == pytest.approx((interval.low, interval.high))
