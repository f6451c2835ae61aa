"""Rows that two methods share."""

import numpy as np

from components.paired import common_rows


def test_only_common_rows_of_common_datasets_in_one_order():
    ours = {"a": np.array([7, 3, 9]), "b": np.array([1, 2]), "mine": np.array([5])}
    theirs = {"a": np.array([9, 4, 7]), "b": np.array([3]), "yours": np.array([5])}
    common = common_rows(ours, theirs)
    assert list(common) == ["a"], "b shares no row, the others are known to one side only"
    first, second = common["a"]
    assert ours["a"][first].tolist() == theirs["a"][second].tolist() == [7, 9]
