"""All subsets in one solve: many small logistic regressions as columns of one matrix.

For a subset S of the datasets the surrogate's step away from theta* is (``docs/architecture.md``, "Surrogate")

    min_w  mean_{i in S} mean_{rows of i} log(1 + exp(-(margin + features . w))) + lambda / 2 |w|^2

**Choice.** Nonlinear conjugate gradients (Polak-Ribiere+, which restarts itself) on all subsets at once, each with its
own step length: one Newton step along the direction, halved until the loss has fallen enough. An iteration is two
matrix products a dataset, over the columns of the subsets that hold it; finished columns leave the work. The path of
lambdas is warm-started from the largest, where one or two iterations are enough.

**Price, and what was rejected.** Newton-CG pays the same two products for every *inner* iteration and ends no sooner;
a Cholesky factor for each subset saves a third of the iterations and costs more than all of them; a shared eigenbasis
as preconditioner saves nothing. Without one, iterations grow as lambda shrinks, like ``lambda ** -0.5``.

**When it stops.** The objective is lambda-strongly convex, so it is at most ``|gradient|^2 / (2 lambda)`` above its
minimum. A column is finished when that bound, in nats, is below ``tolerance``. With the default, mean losses on other
rows were within 1e-4 nats of the exact solution's, along the whole path.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from components.errors import UserError
from components.tables import Features, mean_squared_norms

TOLERANCE = 1e-7
# A solve stopped by MAX_ITERATIONS with a larger bound than this is an error.
ACCEPTABLE_GAP = 1e-4
MAX_ITERATIONS = 1000
MAX_HALVINGS = 40
# Margins alive at once (columns x rows of their datasets). About six float32 arrays of this many numbers exist at
# the peak: 0.1 GB on a CPU, where larger pieces only leave the cache; 6 GB on a GPU, which wants large products.
CELLS = {"cpu": 1 << 22, "cuda": 1 << 28}

Progress = Callable[[int, int], None]


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


@dataclass
class _Columns:
    """The subsets (columns) still being worked on at one lambda; k of them.

    ``held[i]`` are the positions among the k whose subset holds dataset i, and ``margin[i]``, ``pull[i]`` (the
    negated derivative of the loss, ``sigmoid(-margin)``) their rows' values, [len(held[i]), M_i].
    """

    index: torch.Tensor
    members: torch.Tensor
    share: torch.Tensor
    w: torch.Tensor
    held: list[torch.Tensor]
    margin: list[torch.Tensor]
    pull: list[torch.Tensor]
    loss: torch.Tensor
    gradient: torch.Tensor
    direction: torch.Tensor

    def keep(self, mask: torch.Tensor) -> "_Columns":
        """The columns where ``mask`` [k] holds."""
        members = self.members[mask]
        return _Columns(
            index=self.index[mask],
            members=members,
            share=self.share[mask],
            w=self.w[mask],
            held=_held(members),
            margin=[margin[mask[at]] for margin, at in zip(self.margin, self.held, strict=True)],
            pull=[pull[mask[at]] for pull, at in zip(self.pull, self.held, strict=True)],
            loss=self.loss[mask],
            gradient=self.gradient[mask],
            direction=self.direction[mask],
        )


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
        self.features = [torch.from_numpy(block.features).to(device) / self.scale for block in blocks]
        self.offset = [torch.from_numpy(block.margin).to(device) for block in blocks]

    def solve(
        self,
        members: np.ndarray,
        lambdas: Sequence[float],
        *,
        tolerance: float = TOLERANCE,
        progress: Progress | None = None,
    ) -> Solution:
        """Solve for every subset along the path.

        Datasets in a subset weigh equally, and so do the rows within a dataset.

        Args:
            members: bool [K, n], no empty subset.
            lambdas: positive, descending, in the features' own units (absolute).
            tolerance: nats the objective may be above its minimum; float32 reaches about 1e-9.
            progress: called with (subsets done, subsets).

        Raises:
            ValueError: members or lambdas of a wrong form.
            UserError: a subset did not converge (it is named).
        """
        self._check(members, lambdas)
        weights = np.empty((len(lambdas), len(members), self.features[0].shape[1]), np.float32)
        norms = np.empty(weights.shape[:2], np.float32)
        iterations = np.empty(weights.shape[:2], np.int64)
        for part in chunks(members, self.rows, self.device):
            inside = torch.from_numpy(members[part]).to(self.device)
            w = torch.zeros(len(inside), weights.shape[2], device=self.device)
            for at, value in enumerate(lambdas):
                scaled = value / self.scale**2
                w, norm, iterations[at, part] = self._minimise(inside, w, scaled, tolerance)
                self._check_gap(inside, norm**2 / (2 * scaled), value, max(tolerance, ACCEPTABLE_GAP))
                weights[at, part] = (w / self.scale).cpu().numpy()
                norms[at, part] = (norm * self.scale).cpu().numpy()
            if progress is not None:
                progress(part.stop, len(members))
        return Solution(weights, norms, iterations)

    def _minimise(
        self, members: torch.Tensor, w: torch.Tensor, lam: float, tolerance: float
    ) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Minimise from ``w`` [K, dim]; returns w, the gradient's norm [K] and iterations [K]."""
        columns = self._start(members, w, lam)
        result, norms = torch.empty_like(w), torch.empty(len(w), device=w.device)
        iterations = torch.zeros(len(w), dtype=torch.int64, device=w.device)
        for iteration in range(MAX_ITERATIONS + 1):
            norm = columns.gradient.norm(dim=1)
            done = norm**2 <= 2 * lam * tolerance
            done |= iteration == MAX_ITERATIONS
            if done.any():
                finished = columns.index[done]
                result[finished], norms[finished] = columns.w[done], norm[done]
                iterations[finished] = iteration
                columns = columns.keep(~done)
            if not len(columns.index):
                break
            self._iterate(columns, lam)
        return result, norms, iterations.cpu().numpy()

    def _start(self, members: torch.Tensor, w: torch.Tensor, lam: float) -> _Columns:
        held, share = _held(members), 1.0 / members.sum(1).float()
        margin = [
            torch.addmm(offset, w[at], features.T)
            for at, features, offset in zip(held, self.features, self.offset, strict=True)
        ]
        columns = _Columns(
            index=torch.arange(len(w), device=w.device),
            members=members,
            share=share,
            w=w,
            held=held,
            margin=margin,
            pull=[torch.sigmoid(-value) for value in margin],
            loss=_loss(w, margin, held, share, lam),
            gradient=w,
            direction=w,
        )
        columns.gradient = self._gradient(columns, lam)
        columns.direction = -columns.gradient
        return columns

    def _iterate(self, columns: _Columns, lam: float) -> None:
        """One conjugate-gradient iteration of every column, in place."""
        uphill = (columns.gradient * columns.direction).sum(1) >= 0
        columns.direction[uphill] = -columns.gradient[uphill]
        self._line_search(columns, lam)
        previous = columns.gradient
        columns.gradient = self._gradient(columns, lam)
        change = (columns.gradient * (columns.gradient - previous)).sum(1)
        beta = (change / (previous * previous).sum(1)).clamp(min=0)
        columns.direction = beta[:, None] * columns.direction - columns.gradient

    def _line_search(self, columns: _Columns, lam: float) -> None:
        """Step along the direction: margins are linear there, so trials cost no matrix product."""
        along = [columns.direction[at] @ features.T for at, features in zip(columns.held, self.features, strict=True)]
        slope = (columns.gradient * columns.direction).sum(1)
        curvature = lam * (columns.direction**2).sum(1)
        for at, pull, change in zip(columns.held, columns.pull, along, strict=True):
            second = (pull * (1 - pull)).mul_(change).mul_(change).mean(1)
            curvature.index_add_(0, at, second * columns.share[at])
        step = -slope / curvature
        for _ in range(MAX_HALVINGS):
            margin = [
                torch.addcmul(old, step[at, None], change)
                for at, old, change in zip(columns.held, columns.margin, along, strict=True)
            ]
            w = torch.addcmul(columns.w, step[:, None], columns.direction)
            loss = _loss(w, margin, columns.held, columns.share, lam)
            # The slack is float32's noise in the losses: without it, steps near the optimum would be refused.
            bad = loss > columns.loss + 1e-4 * step * slope + 1e-6 * (1 + columns.loss)
            if not bad.any():
                break
            step = torch.where(bad, step / 2, step)
        columns.w, columns.margin, columns.loss = w, margin, loss
        columns.pull = [torch.sigmoid(-value) for value in margin]

    def _gradient(self, columns: _Columns, lam: float) -> torch.Tensor:
        gradient = lam * columns.w
        for at, pull, features in zip(columns.held, columns.pull, self.features, strict=True):
            gradient.index_add_(0, at, (pull @ features) * (-columns.share[at, None] / len(features)))
        return gradient

    def _check(self, members: np.ndarray, lambdas: Sequence[float]) -> None:
        if members.dtype != bool or members.ndim != 2 or members.shape[1] != len(self.rows):
            raise ValueError(f"members is {members.dtype} {list(members.shape)}, expected bool [K, {len(self.rows)}]")
        if not members.any(axis=1).all():
            raise ValueError("a subset without datasets cannot be solved")
        if not len(lambdas) or lambdas[-1] <= 0 or any(left < right for left, right in pairwise(lambdas)):
            raise ValueError(f"lambdas must be positive and descending, got {list(lambdas)}")

    def _check_gap(self, members: torch.Tensor, gap: torch.Tensor, lam: float, limit: float) -> None:
        bad = torch.nonzero(~(gap <= limit))[:, 0]  # not "gap > limit": a NaN is caught too
        if len(bad):
            inside = members[bad[0]].cpu().numpy()
            names = ", ".join(name for name, held in zip(self.names, inside, strict=True) if held)
            raise UserError(
                f"{len(bad)} subsets did not converge at lambda {lam:.3g}; the first holds {names}",
                remedy="drop the smallest values from surrogate.lambdas",
            )


def _held(members: torch.Tensor) -> list[torch.Tensor]:
    return [torch.nonzero(column)[:, 0] for column in members.T]


def _loss(
    w: torch.Tensor, margin: list[torch.Tensor], held: list[torch.Tensor], share: torch.Tensor, lam: float
) -> torch.Tensor:
    """The objective of every column, float64 [k]."""
    loss = (0.5 * lam * (w * w).sum(1)).double()
    for at, value in zip(held, margin, strict=True):
        loss.index_add_(0, at, (torch.nn.functional.softplus(-value).mean(1) * share[at]).double())
    return loss
