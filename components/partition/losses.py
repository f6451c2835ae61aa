"""What the surrogate says about groups, in one unit, each group solved once.

Every loss is divided by the entropy of its dataset's labels, so that 77 classes don't drown 2. Three columns run
through everything: lambda chosen on all validation rows, on half 0, on half 1. They keep choosing and measuring apart.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from components.partition.exact import MOST_DATASETS, bit_masks
from components.partition.groups import Group, Groups, to_members
from components.partition.search import Cost

RowLosses = Callable[[np.ndarray], list[dict[int, np.ndarray]]]
"""members bool [K, n] -> for each subset {dataset: loss of its validation rows, [3, M_i]}."""

PartitionRows = list[np.ndarray]
"""For each dataset the loss of its validation rows [M_i] under its own group, in units of entropy."""

_AT_ONCE = 128  # groups a call of row_losses: bounds its memory


class Losses:
    """Losses of groups: looked up where estimated already, otherwise solved and remembered."""

    def __init__(
        self,
        entropy: np.ndarray,
        members: np.ndarray,
        loss: np.ndarray,
        row_losses: RowLosses,
        second_half: Sequence[np.ndarray],
    ) -> None:
        """Take over what was estimated already.

        Args:
            entropy: nats [n], positive.
            members: bool [K, n], the subsets estimated.
            loss: [3, K, n], mean validation loss with lambda chosen and loss measured on all rows, half 0, half 1; NaN
                where a dataset is not in the subset.
            row_losses: as :data:`RowLosses`.
            second_half: for each dataset a bool mask [M_i], true for the rows of half 1.
        """
        self.entropy = entropy
        self.n = len(entropy)
        self.second_half = second_half
        self._row_losses = row_losses
        self._rows: dict[Group, dict[int, np.ndarray]] = {}
        costs = np.where(members, loss / entropy, 0.0).sum(axis=2).T
        groups = (tuple(np.flatnonzero(row).tolist()) for row in members)
        self._costs: dict[Group, np.ndarray] = dict(zip(groups, costs, strict=True))

    def table(self) -> np.ndarray | None:
        """Costs of all subsets by bit mask, [3, 2**n] with 0 for the empty one; None unless all were estimated."""
        if self.n > MOST_DATASETS or len(self._costs) < 2**self.n - 1:
            return None
        table = np.zeros((3, 2**self.n))
        table[:, bit_masks(to_members(list(self._costs), self.n))] = np.stack(list(self._costs.values()), axis=1)
        return table

    def cost(self, column: int) -> Cost:
        """The cost of groups (sum over members of loss / entropy) under one of the three columns."""

        def costs(groups: Sequence[Group]) -> np.ndarray:
            self._solve([group for group in dict.fromkeys(groups) if group not in self._costs])
            return np.array([self._costs[group][column] for group in groups])

        return costs

    def rows(self, partition: Groups, column: int, half: int | None = None) -> PartitionRows:
        """Losses of the validation rows under ``partition``: of all rows, or of one half's."""
        self.fetch([partition])
        of_dataset = {i: losses[column] for group in partition for i, losses in self._rows[group].items()}
        if half is None:
            return [of_dataset[i] for i in range(self.n)]
        return [of_dataset[i][self.second_half[i] == bool(half)] for i in range(self.n)]

    def fetch(self, partitions: Sequence[Groups]) -> None:
        """Solve the groups of all ``partitions`` together, and keep the losses of their rows."""
        groups = dict.fromkeys(group for partition in partitions for group in partition)
        new = [group for group in groups if group not in self._rows]
        for found in self._chunks(new):
            self._rows.update(found)

    def resampled_table(self, counts: Sequence[np.ndarray]) -> np.ndarray:
        """Costs of all subsets under B resamples of the rows, [B, 2**n], lambda chosen on all rows.

        Args:
            counts: for each dataset [B, M_i], how often each row was drawn.
        """
        table = np.zeros((len(counts[0]), 2**self.n))
        for found in self._chunks(list(self._costs)):
            groups = list(found)
            masks = bit_masks(to_members(groups, self.n))
            for i in range(self.n):
                inside = [k for k, group in enumerate(groups) if i in group]
                if inside:
                    losses = np.stack([found[groups[k]][i][0] for k in inside], axis=1)
                    table[:, masks[inside]] += counts[i] @ losses / len(losses)
        return table

    def _solve(self, groups: Sequence[Group]) -> None:
        for found in self._chunks(groups):
            for group, rows in found.items():
                self._costs[group] = sum((self._means(i, losses) for i, losses in rows.items()), np.zeros(3))

    def _means(self, dataset: int, losses: np.ndarray) -> np.ndarray:
        """Mean over all rows, half 0 and half 1, each with its own column, of ``losses`` [3, M_i]."""
        second = self.second_half[dataset]
        return np.array([losses[0].mean(), losses[1][~second].mean(), losses[2][second].mean()])

    def _chunks(self, groups: Sequence[Group]) -> Iterator[dict[Group, dict[int, np.ndarray]]]:
        """Row losses of ``groups`` in units of entropy, some groups at a time."""
        for begin in range(0, len(groups), _AT_ONCE):
            part = groups[begin : begin + _AT_ONCE]
            solved = self._row_losses(to_members(part, self.n))
            yield {
                group: {i: np.asarray(losses, dtype=np.float64) / self.entropy[i] for i, losses in rows.items()}
                for group, rows in zip(part, solved, strict=True)
            }
