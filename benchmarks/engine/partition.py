"""The relaxed partition against a general solver, and a thousand datasets.

python -m benchmarks.engine.partition
"""

import time

import cvxpy
import numpy as np

from benchmarks.measure import Row, alternate
from components.partition.groups import from_labels
from components.partition.rounding import affinity_objective, round_relaxation
from components.partition.sdp import normalise, relax, upper_bound


def planted(n: int, m: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """A normalised affinity of m blocks under normal noise, and the labels."""
    random = np.random.default_rng(0)
    labels = np.concatenate([np.arange(m), random.integers(0, m, n - m)])
    return normalise(np.equal.outer(labels, labels) + noise * random.standard_normal((n, n))), labels


def scs(affinity: np.ndarray, m: int) -> float:
    """The relaxation's value by cvxpy and SCS."""
    n = len(affinity)
    rows, columns = np.triu_indices(n, 1)
    x = cvxpy.Variable((n, n), symmetric=True)
    constraints = [x >> 0, x.sum(axis=1) == 1, x[rows, columns] >= 0, x.trace() == m]
    problem = cvxpy.Problem(cvxpy.Maximize(affinity.ravel() @ x.flatten(order="C")), constraints)
    return float(problem.solve(solver=cvxpy.SCS, eps=1e-5, max_iters=10_000))


def small() -> list[Row]:
    """Same value as SCS, and the time of both."""
    rows = []
    for n, m in ((10, 3), (100, 5)):
        affinity, _ = planted(n, m, 3.0)
        value = float(np.vdot(affinity, relax(affinity, groups=m).matrix))
        theirs = scs(affinity, m)
        apart = abs(value - theirs) / abs(theirs)
        what = f"relaxed partition of {n} datasets into {m}"
        rows.append(Row(f"{what}, objective against SCS", value, theirs, apart, 1e-3, unit="<T, X>"))
        ours, general = alternate(lambda a=affinity, g=m: relax(a, groups=g), lambda a=affinity, g=m: scs(a, g))
        rows.append(Row(f"{what}, times faster than SCS", ours, general, general / ours, None, "at least"))
    return rows


def thousand(n: int = 1000, m: int = 10, noise: float = 2.0) -> list[Row]:
    """A thousand datasets in noisy blocks: time, bound, and whether the blocks come back."""
    affinity, labels = planted(n, m, noise)
    begin = time.perf_counter()
    relaxation = relax(affinity, groups=m)
    groups = round_relaxation(affinity, relaxation.matrix, m, seed=0)
    seconds = time.perf_counter() - begin
    reached = affinity_objective(affinity, groups)
    spectral = upper_bound(affinity, np.zeros((n, n)), m)
    wrong = 0.0 if groups == from_labels(labels) else 1.0
    what = f"partition of {n:,} datasets into {m}, noise {noise:g}"
    return [
        Row(what, seconds, None, seconds, 60.0, note="measured once"),
        Row(f"{what}, bound", relaxation.bound, reached, relaxation.bound / reached, 1.001, unit="<T, X>"),
        Row(f"{what}, eigenvalue bound", spectral, reached, spectral / reached, None, unit="<T, X>"),
        Row(f"{what}, planted blocks missed", wrong, None, wrong, 0.0, unit=""),
    ]


def rows() -> list[Row]:
    """All of them."""
    return [*small(), *thousand()]


if __name__ == "__main__":
    for row in rows():
        print(row)
