"""The semidefinite relaxation of grouping datasets by affinity, with a bound that holds.

A partition is the matrix X with ``X[i, j] = 1 / |g|`` where i and j share a group g, else 0: it is nonnegative,
positive semidefinite, has unit row sums, and its trace is the number of groups. Relaxed to all such matrices (Peng and
Wei, SIAM Journal on Optimization 2007),

    max <T, X>               with tr X = m             (a given number of groups), or
    max <T, X> - lambda tr X                           (lambda is what one more group must bring).

``<T, X>`` ignores row and column offsets of T because ``X e = e``; T is therefore symmetrised, double-centred and
divided by its spectral norm first, which makes lambda a number between 0 (many groups) and 1 (always a single one).

**The bound.** Write ``X = e e'/n + Y`` with ``Y e = 0``. As X is stochastic, ``0 <= Y <= I``. So for *any* ``Z >= 0``

    <T, X> <= <T + Z, X> <= sum(T + Z)/n + the m - 1 largest eigenvalues of T + Z on the complement of e,

whatever accuracy Z was computed to. Z is the solver's multiplier of ``X >= 0``; ``Z = 0`` gives the eigenvalue bound
of Donath and Hoffman. Up to 150 datasets the problem is solved (cvxpy with SCS: its first-order steps stay affordable
where interior points do not). Above, X is made of the leading eigenvectors and the bound is the eigenvalue bound:
weaker, but nothing fails and no hour is spent; the result says which way it was.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import cvxpy as cp
import numpy as np

SOLVED_UP_TO = 150


@dataclass(frozen=True)
class Relaxation:
    """A relaxed partition: ``matrix`` float64 [n, n], and a value no partition exceeds."""

    matrix: np.ndarray
    bound: float
    method: Literal["sdp", "spectral"]


def normalise(affinity: np.ndarray) -> np.ndarray:
    """Symmetrised, double-centred ``affinity`` [n, n], divided by its spectral norm (all zero where that is 0).

    Raises:
        ValueError: not a square matrix of finite numbers.
    """
    if affinity.ndim != 2 or affinity.shape[0] != affinity.shape[1] or not np.isfinite(affinity).all():
        raise ValueError(f"an affinity matrix is square and finite, this one has shape {affinity.shape}")
    symmetric = (affinity + affinity.T).astype(np.float64) / 2
    centred = _centre(symmetric)
    norm = np.linalg.norm(centred, 2)
    # Offsets leave rounding errors behind; they must not be blown up into an affinity.
    return centred / norm if norm > 1e-12 * np.abs(symmetric).max(initial=0.0) else np.zeros_like(centred)


def relax(affinity: np.ndarray, *, groups: int | None = None, penalty: float = 0.0) -> Relaxation:
    """Solve the relaxation for a normalised ``affinity`` [n, n].

    Args:
        affinity: as :func:`normalise` returns it.
        groups: m in ``tr X = m``; None leaves the trace free.
        penalty: lambda; the bound is then one on ``<T, X> - lambda tr X``.

    Raises:
        cvxpy.error.SolverError: the solver gave up.
    """
    n = len(affinity)
    objective = affinity - penalty * np.eye(n)
    if groups in (1, n):  # one X is feasible, and the eigenvalue bound is its value
        matrix = np.full((n, n), 1.0 / n) if groups == 1 else np.eye(n)
        return Relaxation(matrix, upper_bound(objective, np.zeros((n, n)), groups), "sdp")
    if n > SOLVED_UP_TO:
        return _spectral(objective, groups)
    matrix, multipliers = _solve(objective, groups)
    bounds = [upper_bound(objective, z, groups) for z in (multipliers, np.zeros((n, n)))]
    return Relaxation(matrix, min(bounds), "sdp")


def upper_bound(objective: np.ndarray, multipliers: np.ndarray, groups: int | None) -> float:
    """What ``<objective, X>`` cannot exceed over relaxed partitions, for any ``multipliers`` [n, n] >= 0."""
    shifted = objective + multipliers
    values, _ = _complement(shifted)
    inside = np.maximum(values, 0.0).sum() if groups is None else values[: groups - 1].sum()
    return float(shifted.sum() / len(shifted) + inside)


def _solve(objective: np.ndarray, groups: int | None) -> tuple[np.ndarray, np.ndarray]:
    """X and the multipliers of X >= 0, clipped to be nonnegative."""
    n = len(objective)
    rows, columns = np.triu_indices(n, 1)  # the diagonal is nonnegative because X is psd
    x = cp.Variable((n, n), symmetric=True)
    nonnegative = x[rows, columns] >= 0
    constraints = [x >> 0, x.sum(axis=1) == 1, nonnegative]
    if groups is not None:
        constraints.append(x.trace() == groups)
    with warnings.catch_warnings():
        # An answer short of full accuracy is welcome: the bound holds for any multipliers, and X is only rounded.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem = cp.Problem(cp.Maximize(objective.ravel() @ x.flatten(order="C")), constraints)
        problem.solve(solver=cp.SCS, eps=1e-5, max_iters=5000)
    multipliers = np.zeros((n, n))
    multipliers[rows, columns] = np.maximum(nonnegative.dual_value, 0.0) / 2
    return np.asarray(x.value), multipliers + multipliers.T


def _spectral(objective: np.ndarray, groups: int | None) -> Relaxation:
    """The relaxation without ``X >= 0``: leading eigenvectors on the complement of e."""
    n = len(objective)
    values, vectors = _complement(objective)
    count = int((values > 0).sum()) if groups is None else groups - 1
    matrix = np.full((n, n), 1.0 / n) + vectors[:, :count] @ vectors[:, :count].T
    return Relaxation(matrix, upper_bound(objective, np.zeros((n, n)), groups), "spectral")


def _complement(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [n - 1], descending, and eigenvectors [n, n - 1] of ``matrix`` on the complement of e."""
    n = len(matrix)
    below_all = 2 * np.abs(matrix).sum() + 1.0  # e's own eigenvalue goes to the bottom, where it is cut off
    values, vectors = np.linalg.eigh(_centre(matrix) - below_all * np.ones((n, n)) / n)
    return values[:0:-1], vectors[:, :0:-1]


def _centre(matrix: np.ndarray) -> np.ndarray:
    rows = matrix - matrix.mean(axis=0)
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))
