from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from components.errors import UserError
from components.tables import (
    Features,
    Logits,
    mean_squared_norms,
    read_features,
    read_logits,
    row_losses,
    write_features,
    write_logits,
)

ROW = np.array([2**62 + 1, 7, 9], np.int64)


def features(values: np.ndarray | None = None, margin: list[float] | None = None) -> Features:
    table = np.arange(6, dtype=np.float32).reshape(3, 2) if values is None else values
    return Features(ROW, table, np.array(margin or [0.5, -1.0, 2.0], np.float32))


def logits(label: list[int]) -> Logits:
    return Logits(ROW, np.arange(9, dtype=np.float32).reshape(3, 3), np.array(label, np.int64))


def test_features_come_back_as_written(tmp_path: Path) -> None:
    # a transposed view: what is written must be its values, not its buffer
    write_features(tmp_path / "new", "train", features(np.arange(6, dtype=np.float32).reshape(2, 3).T))
    back = read_features(tmp_path / "new", "train")
    assert back.row.tolist() == ROW.tolist()
    assert back.row.dtype == np.int64
    assert back.features.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert back.margin.tolist() == [0.5, -1.0, 2.0]


def test_logits_come_back_as_written(tmp_path: Path) -> None:
    write_logits(tmp_path, "test", logits([0, 2, 1]))
    back = read_logits(tmp_path, "test")
    assert back.logits.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert back.label.tolist() == [0, 2, 1]


def test_splits_are_files_of_their_own(tmp_path: Path) -> None:
    write_features(tmp_path, "train", features())
    write_features(tmp_path, "validation", features(margin=[0.0, 0.0, 1.0]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.safetensors", "validation.safetensors"]
    assert read_features(tmp_path, "validation").margin.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named_by_row(bad: float) -> None:
    values = np.zeros((3, 2), np.float32)
    values[1, 0] = bad
    with pytest.raises(ValueError, match=r"1 of 3 rows have features that are not finite: row 7$"):
        features(values)
    with pytest.raises(ValueError, match=r"a margin that is not finite: row 7, 9$"):
        features(margin=[0.0, bad, bad])


def test_labels_out_of_range_are_named_by_row() -> None:
    with pytest.raises(ValueError, match=r"2 of 3 rows have a label outside 0\.\.2: row 7, 9$"):
        logits([0, 3, -1])


def test_wrong_types_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="features is float64 with shape"):
        features(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="features is float32 with shape"):
        features(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="row 3, features 2, margin 3"):
        features(np.zeros((2, 2), np.float32))


def test_a_file_with_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"row": ROW}, tmp_path / "train.safetensors")
    with pytest.raises(ValueError, match="expected"):
        read_features(tmp_path, "train")


def test_mean_squared_norms_are_means_over_rows() -> None:
    # rows (0, 1), (2, 3), (4, 5): squared norms 1, 13, 41
    assert mean_squared_norms([features()], ["a"]) == pytest.approx([55 / 3])


def test_unusable_datasets_are_all_named() -> None:
    empty = Features(ROW[:0], np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    zero = features(np.zeros((3, 2), np.float32))
    with pytest.raises(UserError) as error:
        mean_squared_norms([features(), empty, zero], ["good", "empty", "zero"])
    assert [line.split(":")[0] for line in error.value.problems] == ["empty", "zero"]


def test_row_losses_are_minus_log_probabilities() -> None:
    table, label = np.array([[1.0, 2.0, 0.5], [800.0, 0.0, -800.0]], np.float32), np.array([2, 0])
    first = -np.log(np.exp(0.5) / (np.exp(1.0) + np.exp(2.0) + np.exp(0.5)))
    assert row_losses(table, label) == pytest.approx([first, 0.0])
