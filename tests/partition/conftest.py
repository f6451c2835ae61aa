"""A toy surrogate whose losses are known, and every set partition of a few datasets."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

Groups = tuple[tuple[int, ...], ...]


class Toy:
    """n datasets in planted blocks: strangers in a group cost, friends help; each row and each solve adds noise."""

    def __init__(
        self, labels: list[int], *, harm: float = 0.3, noise: float = 0.02, rows: int = 40, seed: int = 0
    ) -> None:
        self.n, self.noise, self.seed = len(labels), noise, seed
        self.names = [f"d{i}" for i in range(self.n)]
        random = np.random.default_rng(seed)
        self.entropy = random.uniform(0.5, 2.0, self.n)
        same = np.equal.outer(labels, labels)
        self.effect = np.where(same, -harm, harm) * ~np.eye(self.n, dtype=bool)
        self.base = [random.uniform(0.5, 1.5, rows + i) * self.entropy[i] for i in range(self.n)]
        self.second_half = [np.arange(len(base)) % 2 == 1 for base in self.base]
        self.asked = 0

    def row_losses(self, members: np.ndarray) -> list[dict[int, np.ndarray]]:
        self.asked += len(members)
        return [{int(i): self._rows(row, int(i)) for i in np.flatnonzero(row)} for row in members]

    def _rows(self, row: np.ndarray, i: int) -> np.ndarray:
        effect = self.effect[i, row].sum() / row.sum() * self.entropy[i]
        random = np.random.default_rng([self.seed, i, *np.flatnonzero(row)])
        return self.base[i] + effect + self.noise * random.standard_normal((3, len(self.base[i])))

    def table(self, members: np.ndarray) -> np.ndarray:
        """Mean losses [3, K, n] as an estimator reports them."""
        loss = np.full((3, *members.shape), np.nan)
        for k, rows in enumerate(self.row_losses(members)):
            for i, losses in rows.items():
                second = self.second_half[i]
                loss[:, k, i] = losses[0].mean(), losses[1][~second].mean(), losses[2][second].mean()
        return loss

    def all_subsets(self) -> np.ndarray:
        return (np.arange(1, 2**self.n)[:, None] >> np.arange(self.n) & 1).astype(bool)

    def arguments(self, members: np.ndarray | None = None) -> dict:
        """Keyword arguments of choose_partition; all subsets unless told otherwise."""
        members = self.all_subsets() if members is None else members
        return {
            "names": self.names,
            "entropy": self.entropy,
            "members": members,
            "loss": self.table(members),
            "affinity": -self.effect,
            "row_losses": self.row_losses,
            "second_half": self.second_half,
            "bootstrap": 50,
        }


def _partitions(n: int) -> Iterator[Groups]:
    if n == 0:
        yield ()
        return
    for smaller in _partitions(n - 1):
        for k, group in enumerate(smaller):
            yield (*smaller[:k], (*group, n - 1), *smaller[k + 1 :])
        yield (*smaller, (n - 1,))


@pytest.fixture(scope="session")
def toy() -> type[Toy]:
    return Toy


@pytest.fixture(scope="session")
def set_partitions() -> Callable[[int], list[Groups]]:
    """Every partition of n datasets, groups ordered by first member."""
    return lambda n: list(_partitions(n))
