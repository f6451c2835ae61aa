"""The two tables GPU steps leave behind: features and logits, one safetensors file a split.

Everything after extraction and training is arithmetic on these few megabytes. A table is checked when it is made and
again when it is read, so that a bad number is reported with its rows, where it arose, and not as a strange estimate
three steps later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.special import expit, logsumexp

from components.errors import UserError


@dataclass(frozen=True)
class Features:
    """What the surrogate knows of a dataset's split.

    Attributes:
        row: row ids, int64 [M].
        features: projected gradients of the margin at the point, float32 [M, dim].
        margin: log-odds of the correct answer at the point, float32 [M].

    Raises:
        ValueError: a wrong type or shape, or a number that is not finite (the rows are named).
    """

    row: np.ndarray
    features: np.ndarray
    margin: np.ndarray

    def __post_init__(self) -> None:
        _check_array("row", self.row, np.int64, 1)
        _check_array("features", self.features, np.float32, 2)
        _check_array("margin", self.margin, np.float32, 1)
        _check_lengths(row=self.row, features=self.features, margin=self.margin)
        _check_rows(self.row, ~np.isfinite(self.features).all(axis=1), "features that are not finite")
        _check_rows(self.row, ~np.isfinite(self.margin), "a margin that is not finite")

    def part(self, columns: slice) -> "Features":
        """The same rows with some of the columns."""
        return Features(self.row, np.ascontiguousarray(self.features[:, columns]), self.margin)


@dataclass(frozen=True)
class Logits:
    """A model's label logits on a dataset's split.

    Attributes:
        row: row ids, int64 [N].
        logits: one column a label, float32 [N, C]. Completion datasets: C = 2, (0, mean log-odds of the response).
        label: the correct column, int64 [N], 0 <= label < C. Completion datasets: 1.

    Raises:
        ValueError: a wrong type or shape, a number that is not finite, a label out of range (the rows are named).
    """

    row: np.ndarray
    logits: np.ndarray
    label: np.ndarray

    def __post_init__(self) -> None:
        _check_array("row", self.row, np.int64, 1)
        _check_array("logits", self.logits, np.float32, 2)
        _check_array("label", self.label, np.int64, 1)
        _check_lengths(row=self.row, logits=self.logits, label=self.label)
        _check_rows(self.row, ~np.isfinite(self.logits).all(axis=1), "logits that are not finite")
        columns = self.logits.shape[1]
        _check_rows(self.row, (self.label < 0) | (self.label >= columns), f"a label outside 0..{columns - 1}")


def write_features(folder: Path, split: str, table: Features) -> None:
    """Write ``<split>.safetensors`` into ``folder``."""
    _write(folder, split, {"row": table.row, "features": table.features, "margin": table.margin})


def read_features(folder: Path, split: str) -> Features:
    """Read what :func:`write_features` wrote.

    Raises:
        ValueError: the file holds something else, or bad numbers.
    """
    return Features(**_read(folder, split, {"row", "features", "margin"}))


def write_logits(folder: Path, split: str, table: Logits) -> None:
    """Write ``<split>.safetensors`` into ``folder``."""
    _write(folder, split, {"row": table.row, "logits": table.logits, "label": table.label})


def read_logits(folder: Path, split: str) -> Logits:
    """Read what :func:`write_logits` wrote.

    Raises:
        ValueError: the file holds something else, or bad numbers.
    """
    return Logits(**_read(folder, split, {"row", "logits", "label"}))


def row_losses(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row, nats, [N] from logits [N, C]."""
    return logsumexp(np.asarray(logits, np.float64), axis=1) - logits[np.arange(len(label)), label]


def mean_pulls(tables: Sequence[Features]) -> np.ndarray:
    """Each dataset's mean gradient of the loss at the point, negated, float64 [n, dim]: where training pulls first."""
    pulls = []
    for table in tables:
        wrong = expit(-table.margin.astype(np.float64))
        pulls.append(wrong @ table.features.astype(np.float64) / len(table.row))
    return np.stack(pulls)


def mean_squared_norms(tables: Sequence[Features], names: Sequence[str]) -> np.ndarray:
    """Mean squared feature norm of each dataset's rows, float64 [n]: the scale of the surrogate's curvature.

    Raises:
        UserError: nothing can be fitted to a dataset (no rows, not finite, only zeros), or dimensions differ.
    """
    problems, squares = [], np.zeros(len(tables))
    for i, (name, table) in enumerate(zip(names, tables, strict=True)):
        if not len(table.row):
            problems.append(f"{name}: no rows")
            continue
        squares[i] = np.square(table.features.astype(np.float64)).sum(1).mean()
        if not np.isfinite(squares[i]) or not np.isfinite(table.margin).all():
            problems.append(f"{name}: features or margins that are not finite")
        elif squares[i] == 0:
            problems.append(f"{name}: every feature is zero, so no training can change its answers")
    dimensions = {table.features.shape[1] for table in tables}
    if len(dimensions) > 1:
        problems.append(f"the datasets' features differ in dimension: {sorted(dimensions)}")
    if problems:
        raise UserError(
            "the surrogate cannot be fitted to these features",
            remedy="look at the datasets named here, then extract their features again",
            problems=tuple(problems),
        )
    return squares


def _write(folder: Path, split: str, tensors: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # safetensors stores the buffer as it lies: a transposed or strided view would be written scrambled.
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / f"{split}.safetensors")


def _read(folder: Path, split: str, expected: set[str]) -> dict[str, np.ndarray]:
    path = folder / f"{split}.safetensors"
    tensors = load_file(path)
    if set(tensors) != expected:
        raise ValueError(f"{path} holds {sorted(tensors)}, expected {sorted(expected)}")
    return tensors


def _check_array(name: str, value: np.ndarray, dtype: type, dimensions: int) -> None:
    if value.dtype != dtype or value.ndim != dimensions:
        raise ValueError(
            f"{name} is {value.dtype} with shape {list(value.shape)}, "
            f"expected {np.dtype(dtype)} with {dimensions} dimension(s)"
        )


def _check_lengths(**arrays: np.ndarray) -> None:
    if len({len(value) for value in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {len(value)}" for name, value in arrays.items())
        raise ValueError(f"one entry a row is needed, got {lengths}")


def _check_rows(row: np.ndarray, bad: np.ndarray, what: str) -> None:
    if bad.any():
        shown = ", ".join(str(value) for value in row[bad][:5]) + (", ..." if bad.sum() > 5 else "")
        raise ValueError(f"{bad.sum()} of {len(row)} rows have {what}: row {shown}")
