"""What a joint fine-tune on a group of datasets would reach, estimated from stored features.

For each subset the first-order surrogate is fitted to the training rows along a path of lambdas, and its loss is
measured on the validation rows. The path is in units of lambda = 1 / (the datasets' training times together), where
training would end: a small group is not credited with the steps of a large one. On it, lambda is chosen for each
subset by the mean validation loss of its datasets, the twin of early stopping. Rows that choose flatter what they
measure, so every choice is also made on each half of the validation rows alone; cross-fitting sets one half's choice
against the other half's loss.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from components.errors import UserError
from components.solver import PathSolver, chunks
from components.tables import Features, mean_squared_norms

LEAST = 1e-4  # of the mean squared feature norm: with less, minima take ever longer, and validation stops before them


@dataclass(frozen=True)
class Estimates:
    """Estimated results of K subsets of n datasets.

    The first axis of ``lambda_index`` and ``loss`` is the set of validation rows that chose lambda, and on which the
    loss is measured: all rows, half 0, half 1.

    Attributes:
        members: bool [K, n].
        lambda_index: position in the path of lambdas, int64 [3, K].
        loss: mean validation loss in nats, float64 [3, K, n]; NaN where the dataset is not in the subset.
        weights: the step in feature space with lambda chosen on all rows, float32 [K, dim].
    """

    members: np.ndarray
    lambda_index: np.ndarray
    loss: np.ndarray
    weights: np.ndarray


class GroupEstimator:
    """The datasets' features, ready to estimate any subset.

    Memory beyond the features: a chunk of subsets at a time, bounded by ``solver.CELLS`` margins (about 0.1 GB on a
    CPU, 6 GB on a GPU) plus ``4 L K_chunk dim`` bytes of weights; and the result, ``24 K n + 4 K dim`` bytes.

    Args:
        train: features of the training rows, one table a dataset.
        validation: features of the validation rows, same order; at least two rows each.
        lambdas: descending, in units of the lambda that stands for a subset's whole training: 10 is a tenth of it.
        times: training time that each dataset adds, float64 [n], see :func:`~components.training_time.training_times`.
        seed: of the halves.
        names: of the datasets, for error messages.
        device: where the arithmetic runs, as torch names it.

    Attributes:
        halves: per dataset which validation rows are in half 1, bool [M_i]; fixed by seed and row ids.

    Raises:
        UserError: features that nothing can be fitted to; the datasets are named.
    """

    def __init__(
        self,
        train: Sequence[Features],
        validation: Sequence[Features],
        lambdas: Sequence[float],
        times: np.ndarray,
        *,
        seed: int,
        names: Sequence[str] | None = None,
        device: str = "cpu",
    ) -> None:
        names = list(names) if names is not None else [f"dataset {i}" for i in range(len(train))]
        rows = np.array([len(table.row) for table in validation])
        short = [f"{name}: {count}" for name, count in zip(names, rows, strict=True) if count < 2]
        if short:
            raise UserError(
                "each dataset needs at least two validation rows: one half to choose on, one to measure on",
                remedy="give these datasets more validation rows",
                problems=tuple(short),
            )
        self._solver = PathSolver(train, names=names, device=device)
        train_rows = np.array([len(table.row) for table in train])
        self._least = LEAST * np.average(mean_squared_norms(train, names), weights=train_rows)
        self._path, self._times = np.asarray(lambdas, np.float64), np.asarray(times, np.float64)
        self.halves = [halves_of(table.row, seed) for table in validation]
        self._device = device
        self._rows = np.maximum(train_rows, rows)
        self._features = [torch.from_numpy(table.features).to(device) for table in validation]
        self._offset = [torch.from_numpy(table.margin).to(device) for table in validation]
        self._shares = [_shares(half, device) for half in self.halves]

    def lambdas(self, members: np.ndarray) -> np.ndarray:
        """The path of each subset of ``members`` [K, n] in the features' own units, float64 [L, K]."""
        return np.maximum(self._path[:, None] / (members @ self._times), self._least)

    def solve(self, members: np.ndarray, *, progress: Callable[[int, int], None] | None = None) -> Estimates:
        """Estimate every subset.

        Args:
            members: bool [K, n], no empty subset.
            progress: called with (subsets done, subsets).

        Raises:
            ValueError: members of a wrong form.
            UserError: a subset did not converge (it is named).
        """
        count, n = members.shape
        index = np.empty((3, count), np.int64)
        loss = np.empty((3, count, n))
        weights = np.empty((count, self._features[0].shape[1]), np.float32)
        for part, solved, chosen, measured in self._parts(members):
            index[:, part], loss[:, part] = chosen, measured
            weights[part] = solved[chosen[0], np.arange(len(solved[0]))]
            if progress is not None:
                progress(part.stop, count)
        return Estimates(members, index, loss, weights)

    def row_losses(self, members: np.ndarray) -> list[dict[int, np.ndarray]]:
        """Validation loss of every row, for each subset and each dataset in it.

        Args:
            members: bool [K, n], no empty subset.

        Returns:
            K dictionaries from a dataset's position to its losses in nats, float32 [3, M_i]: of *all* its rows, with
            lambda chosen on all rows, on half 0, on half 1.

        Raises:
            ValueError, UserError: as :meth:`solve`.
        """
        rows: list[dict[int, np.ndarray]] = [{} for _ in members]
        for part, solved, index, _ in self._parts(members):
            chosen = torch.from_numpy(solved[index, np.arange(len(solved[0]))]).to(self._device)
            for i in range(members.shape[1]):
                held = np.flatnonzero(members[part, i])
                losses = self._losses(i, chosen[:, held]).float().cpu().numpy()
                for at, k in enumerate(held):
                    rows[part.start + k][i] = losses[:, at]
        return rows

    def _parts(self, members: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (which subsets, weights [L, k, dim], chosen lambda [3, k], loss [3, k, n]) chunk by chunk."""
        for part in chunks(members, self._rows, self._device):
            inside = members[part]
            solved = self._solver.solve(inside, self.lambdas(inside)).weights
            table = np.stack([self._mean_losses(inside, w) for w in torch.from_numpy(solved)])
            index = np.nanmean(table, axis=3).argmin(axis=0)
            loss = np.take_along_axis(table, index[None, :, :, None], axis=0)[0]
            yield part, solved, index, loss

    def _mean_losses(self, members: np.ndarray, weights: torch.Tensor) -> np.ndarray:
        """Mean validation loss on all rows and on each half, [3, K, n], of one lambda's ``weights`` [K, dim]."""
        loss = np.full((3, *members.shape), np.nan)
        on_device = weights.to(self._device)
        for i, share in enumerate(self._shares):
            held = np.flatnonzero(members[:, i])
            loss[:, held, i] = (self._losses(i, on_device[held]) @ share).T.cpu().numpy()
        return loss

    def _losses(self, i: int, weights: torch.Tensor) -> torch.Tensor:
        """Validation loss of dataset i's rows, float64 [..., M_i], under ``weights`` [..., dim]."""
        margin = weights @ self._features[i].T + self._offset[i]
        return torch.logaddexp(torch.zeros((), device=margin.device), -margin).double()


def halves_of(row: np.ndarray, seed: int) -> np.ndarray:
    """Which rows are in half 1, bool [M]: the lower half of a hash of (seed, row id), so both halves are balanced.

    Args:
        row: row ids, int64 [M].
        seed: any integer >= 0.
    """
    # The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
    mixed = row.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    half = np.zeros(len(row), bool)
    half[np.argsort(mixed, kind="stable")[: len(row) // 2]] = True
    return half


def _shares(half: np.ndarray, device: str) -> torch.Tensor:
    """Columns that average over all rows, half 0, half 1: float64 [M, 3]."""
    columns = np.stack([np.ones(len(half)), ~half, half], axis=1).astype(np.float64)
    return torch.from_numpy(columns / columns.sum(0)).to(device)
