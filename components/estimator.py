"""What a joint fine-tune on a group of datasets would reach, estimated from stored features.

For each subset the first-order surrogate is fitted to the training rows along a path of lambdas, and its loss is
measured on the validation rows. The path is in units of lambda = 1 / (the datasets' training times together), where
training would end: a small group is not credited with the steps of a large one. On it, lambda is chosen for each
subset by the mean validation loss of its datasets, the twin of early stopping. Rows that choose flatter what they
measure, so every choice is also made on each half of the validation rows alone; cross-fitting sets one half's choice
against the other half's loss.

A projection is a matter of luck, and so is what is estimated from it. So the features' columns are taken in parts of
some ``width``, each a sketch by itself of another share of the adapter's weights, and the estimate is the mean of the
losses that the parts come to. Of the losses and not of the margins: what the parts disagree on then counts as a risk.
What that gains is in docs/results.md; means over random projections regularise (Durrant and Kabán, ACML 2013).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from components.errors import UserError
from components.solver import PathSolver, chunks
from components.tables import Features, mean_squared_norms

LEAST = 1e-4  # of the mean squared feature norm: with less, minima take ever longer, and validation stops before them


@dataclass(frozen=True)
class Estimates:
    """Estimated results of K subsets of n datasets.

    An axis of three is the set of validation rows that chose lambda, and on which the loss is measured: all rows, half
    0, half 1.

    Attributes:
        members: bool [K, n].
        lambda_index: of each of P parts the position in the path of lambdas, int64 [P, 3, K].
        loss: mean validation loss in nats, float64 [3, K, n]; NaN where the dataset is not in the subset.
        weights: the step in feature space with lambda chosen on all rows, float32 [K, dim]: it changes a margin by the
            mean of what the parts' own steps do.
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
        width: columns of a part, about; None: all are one part.
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
        width: int | None = None,
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
        train_rows = np.array([len(table.row) for table in train])
        self._least = LEAST * np.average(mean_squared_norms(train, names), weights=train_rows)
        self._path, self._times = np.asarray(lambdas, np.float64), np.asarray(times, np.float64)
        self.halves = [halves_of(table.row, seed) for table in validation]
        self._device, self._measuring = device, 0
        self._rows = np.maximum(train_rows, rows)
        self._offset = [torch.from_numpy(table.margin).to(device) for table in validation]
        self._shares = [_shares(half, device) for half in self.halves]
        columns = parts_of(train[0].features.shape[1], width)
        self._parts = [_Part(train, validation, part, names, device) for part in columns]

    @property
    def flops(self) -> int:
        """FLOPs of all large matrix products so far: solving, and measuring losses."""
        return self._measuring + sum(part.solver.flops for part in self._parts)

    @property
    def parts(self) -> list[slice]:
        """The columns of each part."""
        return [part.columns for part in self._parts]

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
        (count, n), parts = members.shape, len(self._parts)
        index = np.empty((parts, 3, count), np.int64)
        loss = np.zeros((3, count, n))
        weights = np.empty((count, self.parts[-1].stop), np.float32)
        for p, part in enumerate(self._parts):
            for where, solved, chosen, measured in self._chunks(part, members):
                index[p][:, where] = chosen
                loss[:, where] += measured / parts
                weights[where, part.columns] = solved[chosen[0], np.arange(len(solved[0]))] / parts
                if progress is not None:
                    progress((p * count + where.stop) // parts, count)
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
        for part in self._parts:
            for where, solved, index, _ in self._chunks(part, members):
                chosen = torch.from_numpy(solved[index, np.arange(len(solved[0]))]).to(self._device)
                for i in range(members.shape[1]):
                    held = np.flatnonzero(members[where, i])
                    losses = (self._losses(part, i, chosen[:, held]) / len(self._parts)).float().cpu().numpy()
                    for at, k in enumerate(held + where.start):
                        rows[k][i] = rows[k].get(i, 0) + losses[:, at]
        return rows

    def _chunks(self, part: "_Part", members: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (which subsets, weights [L, k, columns], chosen lambda [3, k], loss [3, k, n]) chunk by chunk."""
        for where in chunks(members, self._rows, self._device):
            inside = members[where]
            solved = part.solver.solve(inside, self.lambdas(inside) * part.share).weights
            table = np.stack([self._mean_losses(part, inside, w) for w in torch.from_numpy(solved)])
            index = np.nanmean(table, axis=3).argmin(axis=0)
            loss = np.take_along_axis(table, index[None, :, :, None], axis=0)[0]
            yield where, solved, index, loss

    def _mean_losses(self, part: "_Part", members: np.ndarray, weights: torch.Tensor) -> np.ndarray:
        """Mean validation loss on all rows and on each half, [3, K, n], of one lambda's ``weights`` [K, columns]."""
        loss = np.full((3, *members.shape), np.nan)
        on_device = weights.to(self._device)
        for i, share in enumerate(self._shares):
            held = np.flatnonzero(members[:, i])
            loss[:, held, i] = (self._losses(part, i, on_device[held]) @ share).T.cpu().numpy()
        return loss

    def _losses(self, part: "_Part", i: int, weights: torch.Tensor) -> torch.Tensor:
        """Validation loss of dataset i's rows, float64 [..., M_i], under ``weights`` [..., columns]."""
        self._measuring += 2 * weights.numel() * len(part.features[i])
        margin = weights @ part.features[i].T + self._offset[i]
        return torch.logaddexp(torch.zeros((), device=margin.device), -margin).double()


class _Part:
    """Some columns of the features, as if they were all.

    A part of the columns keeps a ``share`` of the features' inner products. Instead of features that are larger by its
    root, whose weights would be smaller by it, it is solved with a lambda that is smaller by ``share``: the margins are
    the same.
    """

    def __init__(
        self, train: Sequence[Features], validation: Sequence[Features], columns: slice, names: list[str], device: str
    ) -> None:
        self.columns = columns
        self.share = (columns.stop - columns.start) / train[0].features.shape[1]
        self.solver = PathSolver([table.part(columns) for table in train], names=names, device=device)
        self.features = [torch.from_numpy(table.part(columns).features).to(device) for table in validation]


def parts_of(dim: int, width: int | None) -> list[slice]:
    """Columns 0 ... dim - 1 in parts as near to ``width`` as an even division comes; one part without a width."""
    count = max(1, round(dim / width)) if width else 1
    ends = [dim * k // count for k in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


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
