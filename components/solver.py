"""All subsets in one solve: many small logistic regressions as columns of one matrix.

For a subset S of the datasets the surrogate's step away from the point is (``docs/architecture.md``, "Surrogate")

    min_w  mean_{i in S} mean_{rows of i} log(1 + exp(-(margin + features . w))) + lambda / 2 |w|^2

**Choice.** Nonlinear conjugate gradients (Polak-Ribiere+, which restarts itself) on all subsets at once, each with its
own step length. An iteration is two matrix products a dataset, over the columns of the subsets that hold it; finished
columns leave the work. The path of lambdas is warm-started from the largest, where one or two iterations are enough.

**Preconditioner.** The features are rotated, once, into the eigenvectors of the mean Hessian of all datasets at
the point. There the Hessian of any subset is nearly enough diagonal: dividing the gradient by ``eigenvalue + lambda``
halves the iterations of a path, and more where gradients have a few strong directions or lambda is small
(``docs/performance.md``). A rotation changes neither norms nor the penalty, so nothing else has to know of it.

**Step.** The Newton step along the direction. Where it overshoots, so that the slope behind it is more than half the
one before and uphill, it is replaced by ``log(1 + R t) / R``, t the Newton step and R the largest change of a margin
for a unit step: the logistic loss is self-concordant in Bach's sense (Electronic Journal of Statistics 2010), its
curvature grows at most like ``exp(R t)``, and that step never passes the minimum. Slopes decide and not losses, because
float32 cannot tell losses apart near the optimum (the reason for the approximate Wolfe condition of Hager and Zhang,
SIAM Journal on Optimization 2005).

**Price, and what was rejected.** Newton-CG pays the same two products for every *inner* iteration and ends no sooner;
a Cholesky factor for each subset saves one or two iterations more and costs as much as three.

**When it stops.** The objective is lambda-strongly convex, so it is at most ``|gradient|^2 / (2 lambda)`` above its
minimum. A column is finished when that bound, in nats, is below ``tolerance``. With the default, mean losses on other
rows were within 1e-4 nats of the exact solution's, along the whole path.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from components.columns import Blocks, Columns
from components.errors import UserError
from components.tables import Features, mean_squared_norms

TOLERANCE = 1e-7
# A solve stopped by MAX_ITERATIONS with a larger bound than this is an error.
ACCEPTABLE_GAP = 1e-4
MAX_ITERATIONS = 1000
# Margins alive at once (columns x rows of their datasets). About six float32 arrays of this many numbers exist at
# the peak: 0.1 GB on a CPU, where larger pieces only leave the cache; 6 GB on a GPU, which wants large products.
CELLS = {"cpu": 1 << 22, "cuda": 1 << 28}


@dataclass(frozen=True)
class Solution:
    """Weights along the path of lambdas.

    Attributes:
        weights: float32 [L, K, dim], one row a lambda and subset.
        gradient_norm: norm of the objective's gradient there, float32 [L, K].
        iterations: int64 [L, K].
    """

    weights: np.ndarray
    gradient_norm: np.ndarray
    iterations: np.ndarray


def chunks(members: np.ndarray, rows: np.ndarray, device: str) -> Iterator[slice]:
    """Split the subsets, in order, so that a chunk has at most ``CELLS`` margins (a chunk has at least one subset).

    Args:
        members: bool [K, n].
        rows: rows of each dataset, [n].
        device: ``cpu`` or ``cuda``.
    """
    limit = CELLS[torch.device(device).type]
    start, cells = 0, 0
    for k, size in enumerate(members @ rows):
        if k > start and cells + size > limit:
            yield slice(start, k)
            start, cells = k, 0
        cells += size
    if start < len(members):
        yield slice(start, len(members))


class PathSolver:
    """The datasets, ready to be solved for many subsets.

    Args:
        blocks: one :class:`Features` a dataset, the same ``dim`` everywhere.
        names: of the datasets, for error messages.
        device: where the arithmetic runs, as torch names it.

    Attributes:
        flops: of all matrix products so far.

    Raises:
        UserError: a dataset has no rows, numbers that are not finite, or only zero features.
    """

    def __init__(self, blocks: Sequence[Features], *, names: Sequence[str] | None = None, device: str = "cpu") -> None:
        self.names = list(names) if names is not None else [f"dataset {i}" for i in range(len(blocks))]
        self.device = device
        self.rows = np.array([len(block.row) for block in blocks])
        squares = mean_squared_norms(blocks, self.names)
        # In units of the root mean squared norm nothing over- or underflows, whatever scale the gradients have.
        self.scale = float(np.sqrt(squares.mean()))
        features = [torch.from_numpy(block.features).to(device) / -self.scale for block in blocks]
        odds = [torch.from_numpy(-block.margin).to(device) for block in blocks]
        self._blocks, self._rotation = Blocks.rotated(features, odds)
        self.flops = 4 * int(self.rows.sum()) * len(self._rotation) ** 2  # the Hessian, and its basis

    def solve(
        self,
        members: np.ndarray,
        lambdas: Sequence[float] | np.ndarray,
        *,
        tolerance: float = TOLERANCE,
    ) -> Solution:
        """Solve for every subset along the path.

        Datasets in a subset weigh equally, and so do the rows within a dataset.

        Args:
            members: bool [K, n], no empty subset.
            lambdas: [L], or [L, K] with a path for each subset: positive, descending, in the features' own units.
            tolerance: nats the objective may be above its minimum; float32 reaches about 1e-9.

        Raises:
            ValueError: members or lambdas of a wrong form.
            UserError: a subset did not converge (it is named).
        """
        paths = self._paths(members, lambdas)
        path = torch.from_numpy(paths / self.scale**2).float().to(self.device)
        weights = np.empty((*paths.shape, len(self._rotation)), np.float32)
        norms = np.empty(weights.shape[:2], np.float32)
        iterations = np.empty(weights.shape[:2], np.int64)
        for part in chunks(members, self.rows, self.device):
            inside = torch.from_numpy(members[part]).to(self.device)
            w, norm, iterations[:, part] = self._follow(inside, path[:, part], tolerance)
            weights[:, part] = (w @ self._rotation.T / self.scale).cpu().numpy()
            self.flops += 2 * w.numel() * len(self._rotation)
            norms[:, part] = (norm * self.scale).cpu().numpy()
        return Solution(weights, norms, iterations)

    def _follow(
        self, members: torch.Tensor, path: torch.Tensor, tolerance: float
    ) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Each subset down its path [L, K] at its own pace: rotated w [L, K, dim], the gradients' norms and iterations.

        A column that is finished at one lambda goes on with the next in the same matrix products: batches stay full,
        and nothing is computed twice where a lambda ends.
        """
        columns = Columns.start(self._blocks, members, path[0])
        result = torch.empty(len(path), *columns.w.shape, device=self.device)
        norms = torch.empty(result.shape[:2], device=self.device)
        iterations = torch.zeros(result.shape[:2], dtype=torch.int64, device=self.device)
        stage = torch.zeros(len(members), dtype=torch.int64, device=self.device)
        while True:
            norm, at = columns.gradient.norm(dim=1), stage[columns.index]
            done = norm**2 <= 2 * columns.lam * tolerance
            done |= self._given_up(columns, norm, iterations[at, columns.index], tolerance)
            finished = columns.index[done]
            result[at[done], finished], norms[at[done], finished] = columns.w[done], norm[done]
            stage[finished] += 1
            left = stage[columns.index] < len(path)
            if not left.all():
                columns, done = columns.keep(left), done[left]
            if not len(columns.index):
                return result, norms, iterations.cpu().numpy()
            at = stage[columns.index]
            columns.set_lambda(done, path[at[done], columns.index[done]])
            self.flops += columns.iterate()
            iterations[at, columns.index] += 1

    def _given_up(
        self, columns: Columns, norm: torch.Tensor, iterations: torch.Tensor, tolerance: float
    ) -> torch.Tensor:
        """Columns that have had their iterations, [k]; an error where their bound is not acceptable."""
        over = ~(iterations < MAX_ITERATIONS) | ~torch.isfinite(norm)
        bad = over & ~(norm**2 <= 2 * columns.lam * max(tolerance, ACCEPTABLE_GAP))
        if bad.any():
            first = int(torch.nonzero(bad)[0])
            inside = columns.members[first].cpu().numpy()
            names = ", ".join(name for name, held in zip(self.names, inside, strict=True) if held)
            raise UserError(
                f"{int(bad.sum())} subsets did not converge at lambda {float(columns.lam[first]) * self.scale**2:.3g}; "
                f"the first holds {names}",
                remedy="drop the smallest values from surrogate.lambdas",
            )
        return over

    def _paths(self, members: np.ndarray, lambdas: Sequence[float] | np.ndarray) -> np.ndarray:
        """The path of each subset, float64 [L, K]."""
        if members.dtype != bool or members.ndim != 2 or members.shape[1] != len(self.rows):
            raise ValueError(f"members is {members.dtype} {list(members.shape)}, expected bool [K, {len(self.rows)}]")
        if not members.any(axis=1).all():
            raise ValueError("a subset without datasets cannot be solved")
        given = np.asarray(lambdas, np.float64)
        if not len(given) or (given[-1] <= 0).any() or (np.diff(given, axis=0) > 0).any():
            raise ValueError(f"lambdas must be positive and descending, got {given.tolist()}")
        return np.broadcast_to(given.reshape(len(given), -1), (len(given), len(members)))
