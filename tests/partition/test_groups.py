"""The canonical form and its conversions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.partition.groups import canonical, from_labels, one_each, one_group, to_labels, to_members

labels = st.lists(st.integers(0, 5), min_size=1, max_size=12)


def test_canonical_orders_members_and_groups_and_drops_empty_ones() -> None:
    assert canonical([[5, 2], [], [4, 0], [1, 3]]) == ((0, 4), (1, 3), (2, 5))


def test_one_group_and_one_each() -> None:
    assert one_group(3) == ((0, 1, 2),)
    assert one_each(3) == ((0,), (1,), (2,))


@given(labels)
def test_labels_and_groups_are_inverse(values: list[int]) -> None:
    groups = from_labels(np.array(values))
    assert canonical(groups) == groups
    assert sorted(i for group in groups for i in group) == list(range(len(values)))
    assert from_labels(to_labels(groups, len(values))) == groups
    np.testing.assert_array_equal(to_members(groups, len(values)).sum(axis=0), 1)


def test_members() -> None:
    np.testing.assert_array_equal(to_members([(0, 2), (1,)], 3), [[True, False, True], [False, True, False]])
