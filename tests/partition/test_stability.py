"""Co-membership against a loop over resamples."""

from collections.abc import Callable

import numpy as np
import pytest

from components.partition.choose import resample_counts
from components.partition.groups import to_members
from components.partition.losses import Losses
from components.partition.stability import co_membership


def test_shares_against_brute_force_on_each_resample(toy: type, set_partitions: Callable) -> None:
    surrogate = toy([0, 0, 1, 1, 1], harm=0.02, noise=0.3)
    a = surrogate.arguments()
    losses = Losses(a["entropy"], a["members"], a["loss"], a["row_losses"], a["second_half"])
    counts = resample_counts([len(base) for base in surrogate.base], 12, seed=5)
    together = np.zeros((5, 5))
    for b in range(12):

        def cost(groups: tuple[tuple[int, ...], ...], b: int = b) -> float:
            rows = surrogate.row_losses(to_members(groups, 5))
            return sum(
                float(counts[i][b] @ rows[g][i][0]) / len(counts[i][b]) / surrogate.entropy[i]
                for g, group in enumerate(groups)
                for i in group
            )

        for group in min((groups for groups in set_partitions(5) if len(groups) == 2), key=cost):
            together[np.ix_(group, group)] += 1 / 12
    assert np.unique(together).size > 2  # the resamples do not all agree
    np.testing.assert_allclose(co_membership(losses, 2, resamples=12, seed=5), together)


@pytest.mark.parametrize("m", [1, 4])
def test_one_group_and_one_each_are_certain(toy: type, m: int) -> None:
    a = toy([0, 0, 1, 1]).arguments()
    losses = Losses(a["entropy"], a["members"], a["loss"], a["row_losses"], a["second_half"])
    expected = np.ones((4, 4)) if m == 1 else np.eye(4)
    np.testing.assert_array_equal(co_membership(losses, m, resamples=3, seed=0), expected)
