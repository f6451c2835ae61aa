import numpy as np
import pytest

from components.errors import UserError
from components.subsets import choose_subsets
from components.surrogate.affinity import affinity

NAMES = ["a", "b", "c", "d", "e"]


def table(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    members = choose_subsets(5, 8, 0.6, 1, 12, seed)
    return members, np.where(members, rng.gamma(2.0, 0.3, members.shape) + np.arange(5), np.nan)


def by_loops(members: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = members.shape[1]
    matrix, errors = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        own = [loss[k, i] for k in range(len(members)) if members[k, i]]
        for j in range(n):
            scores = [
                -(loss[k, i] - np.mean(own)) / np.std(own)
                for k in range(len(members))
                if members[k, i] and members[k, j]
            ]
            matrix[i, j] = np.mean(scores)
            errors[i, j] = np.std(scores, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else 1.0
    return matrix, errors


@pytest.mark.parametrize("kept", [31, 14])
def test_it_is_the_definition(kept: int) -> None:
    members, loss = table()
    members, loss = members[-kept:], loss[-kept:]
    result = affinity(members, loss, NAMES)
    matrix, errors = by_loops(members, loss)
    np.testing.assert_allclose(result.matrix, matrix, atol=1e-12)
    np.testing.assert_allclose(result.standard_errors, errors, atol=1e-12)
    assert np.diag(result.matrix).tolist() == [0.0] * 5


def test_a_dataset_that_helps_has_a_positive_entry() -> None:
    members, _ = table()
    loss = np.where(members, 1.0, np.nan)
    loss[members[:, 0] & members[:, 1], 0] = 0.5  # b halves a's loss
    loss[members[:, 0] & members[:, 2], 0] += 0.1  # c adds a little
    matrix = affinity(members, loss, NAMES).matrix
    assert matrix[0, 1] > 0.9
    assert matrix[0, 2] < 0
    assert abs(matrix[0, 3]) < 0.2


def test_a_scale_of_the_losses_does_not_matter() -> None:
    members, loss = table()
    scaled = loss * np.array([1.0, 10.0, 0.1, 3.0, 7.0]) + 2.0
    np.testing.assert_allclose(affinity(members, scaled, NAMES).matrix, affinity(members, loss, NAMES).matrix)


def test_a_dataset_that_never_changes_has_a_row_of_zeros() -> None:
    members, loss = table()
    loss[members[:, 3], 3] = 0.7
    result = affinity(members, loss, NAMES)
    assert not result.matrix[3].any()
    assert not result.standard_errors[3].any()
    assert result.matrix[:3].any(axis=1).all()


def test_a_pair_in_one_subset_has_the_datasets_own_spread() -> None:
    members = np.array([[1, 0], [0, 1], [1, 1]], bool)
    result = affinity(members, np.array([[0.5, np.nan], [np.nan, 0.2], [0.4, 0.3]]), ["a", "b"])
    np.testing.assert_allclose(result.matrix, [[0, 1], [-1, 0]])
    assert result.standard_errors[0, 1] == result.standard_errors[1, 0] == 1.0


def test_missing_pairs_are_named() -> None:
    members, loss = table()
    apart = ~(members[:, 0] & members[:, 4])
    with pytest.raises(UserError) as error:
        affinity(members[apart], loss[apart], NAMES)
    assert error.value.problems == ("a and e",)


def test_a_loss_that_is_missing_is_refused() -> None:
    members, loss = table()
    loss[-1, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        affinity(members, loss, NAMES)
