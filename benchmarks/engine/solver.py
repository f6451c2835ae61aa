"""The subset solver against one logistic regression at a time, and how its time grows.

python -m benchmarks.engine.solver

One at a time takes minutes: it is measured on a sample of the subsets and multiplied.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from benchmarks.measure import Row, alternate
from components.estimator import GroupEstimator
from components.partition.exact import best_partitions, bit_masks
from components.solver import PathSolver
from components.subsets import choose_subsets
from components.tables import Features, mean_squared_norms

LAMBDAS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # in units of the mean squared norm
PATH = [lam / LAMBDAS[-1] for lam in LAMBDAS]  # the pipeline's, in units of its end
LAMBDA = 0.01
CLOSE = 1e-4  # nats


def make_features(datasets: int, rows: int, dim: int, *, offsets: bool = True, seed: int = 0) -> list[Features]:
    """Gradient-like features: a spectrum like 1 / k, three families with a direction each, rows of unequal length."""
    random = np.random.default_rng(seed)
    spectrum = np.arange(1, dim + 1) ** -0.5
    basis, _ = np.linalg.qr(random.standard_normal((dim, dim)))
    families = random.standard_normal((3, dim)) * spectrum
    tables = []
    for i in range(datasets):
        own = np.sqrt(random.gamma(2.0, 0.5, dim)) * spectrum
        centre = 0.15 * families[i % 3] + 0.1 * random.standard_normal(dim) * spectrum
        features = (random.standard_normal((rows, dim)) * own + centre) * np.sqrt(random.gamma(2.0, 0.5, (rows, 1)))
        margin = random.normal(0.5, 1.5, rows) * offsets
        tables.append(Features(np.arange(rows), (30 * features @ basis).astype(np.float32), margin.astype(np.float32)))
    return tables


def unit_of(tables: list[Features]) -> float:
    """Mean squared feature norm."""
    return float(mean_squared_norms(tables, [str(i) for i in range(len(tables))]).mean())


def times(tables: list[Features], size: int) -> np.ndarray:
    """Training times, [n], with which the path of a subset of ``size`` datasets is LAMBDAS."""
    return np.full(len(tables), 1 / (LAMBDAS[-1] * unit_of(tables) * size))


def halves(count: int, datasets: int) -> np.ndarray:
    """``count`` subsets that hold each dataset with probability 1/2; repeats are solved again. bool [count, n]."""
    members = np.random.default_rng(1).random((2 * count, datasets)) < 0.5
    return members[members.any(axis=1)][:count]


def objective(w: np.ndarray, features: np.ndarray, margin: np.ndarray, lam: float) -> tuple[float, np.ndarray]:
    """Loss and gradient of one subset whose datasets have equally many rows."""
    odds = margin + features @ w
    gradient = lam * w - features.T @ expit(-odds) / len(margin)
    return float(np.logaddexp(0, -odds).mean() + lam / 2 * w @ w), gradient


def joined(tables: list[Features], subset: np.ndarray, unit: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a subset's datasets, float64, their features divided by the root of ``unit``."""
    inside = [table for table, held in zip(tables, subset, strict=True) if held]
    features = np.concatenate([table.features for table in inside]).astype(np.float64) / np.sqrt(unit)
    return features, np.concatenate([table.margin for table in inside]).astype(np.float64)


def one_by_one(tables: list[Features], members: np.ndarray, lambdas: tuple[float, ...]) -> list[np.ndarray]:
    """L-BFGS for each subset, down the path from warm start to warm start: its last weights, in units of the norm."""
    unit, found = unit_of(tables), []
    for subset in members:
        features, margin = joined(tables, subset, unit)
        w = np.zeros(features.shape[1])
        for lam in lambdas:
            w = minimize(objective, w, (features, margin, lam), jac=True, method="L-BFGS-B").x
        found.append(w)
    return found


def sklearn_one_by_one(tables: list[Features], members: np.ndarray, lam: float) -> list[np.ndarray]:
    """scikit-learn for each subset; it has no offsets, and a sample ``sign * x`` with label ``sign`` has our loss."""
    found = []
    for subset in members:
        features, _ = joined(tables, subset, unit_of(tables))
        sign = np.where(np.arange(len(features)) % 2, 1.0, -1.0)
        fit = LogisticRegression(C=1 / (lam * len(sign)), fit_intercept=False, solver="lbfgs")
        found.append(fit.fit(features * sign[:, None], sign).coef_[0])
    return found


def excess(tables: list[Features], members: np.ndarray, weights: list[np.ndarray], other: list[np.ndarray]) -> float:
    """By how much the losses at ``weights`` and ``other`` differ at most, nats."""
    unit, worst = unit_of(tables), 0.0
    for subset, ours, theirs in zip(members, weights, other, strict=True):
        rows = joined(tables, subset, unit)
        worst = max(worst, abs(objective(ours, *rows, LAMBDA)[0] - objective(theirs, *rows, LAMBDA)[0]))
    return worst


def two_thousand(sample: int = 20) -> list[Row]:
    """2,000 subsets of 10 datasets x 1,000 samples at one lambda."""
    members, rows = halves(2000, 10), []
    sides = (
        ("scikit-learn, no offsets", make_features(10, 1000, 400, offsets=False), sklearn_one_by_one),
        ("scipy L-BFGS, offsets", make_features(10, 1000, 400), lambda *a: one_by_one(a[0], a[1], (a[2],))),
    )
    for name, tables, baseline in sides:
        unit = unit_of(tables)

        def solve(tables: list[Features] = tables, unit: float = unit) -> np.ndarray:
            return PathSolver(tables).solve(members, [LAMBDA * unit], tolerance=CLOSE / 10).weights[0]

        def compare(tables: list[Features] = tables, baseline: Callable = baseline) -> list[np.ndarray]:
            return list(baseline(tables, members[:sample], LAMBDA))

        ours, theirs = alternate(solve, compare)
        theirs *= len(members) / sample
        what = f"2,000 subsets of 10 datasets x 1,000 samples, dim 400, against {name}"
        note = f"{sample} of them by the baseline, multiplied; both sides within {CLOSE} nats"
        target = 50.0 if baseline is sklearn_one_by_one else None
        rows.append(Row(what, ours, theirs, theirs / ours, target, "at least", note=note))
        found = [w.astype(np.float64) * np.sqrt(unit) for w in solve()[:sample]]
        apart = excess(tables, members[:sample], found, compare())
        rows.append(Row(f"the same, difference in loss to {name}", apart, None, apart, CLOSE, unit="nats"))
        rows.append(Row(f"the same in all ({name.split(',')[1].strip()})", ours, None, ours, 5.0))
    return rows


def every_subset(sample: int = 4) -> list[Row]:
    """Every subset of 12 datasets, a path of lambdas each chosen by validation, and the best partition into each m."""
    train, validation = make_features(12, 1000, 400), make_features(12, 300, 400, seed=1)
    members = choose_subsets(12, 0, 0.3, 1, 12, 0)

    def plan() -> None:
        estimates = GroupEstimator(train, validation, PATH, times(train, 6), seed=0).solve(members)
        cost = np.zeros(2**12)
        cost[bit_masks(members)] = np.nansum(estimates.loss[0], axis=1)
        best_partitions(cost)

    some = members[np.linspace(0, len(members) - 1, sample + 2).astype(int)[1:-1]]
    typical = some[np.argsort(np.abs(some.sum(1) - 6))]  # the mean size is 6
    ours, theirs = alternate(plan, lambda: one_by_one(train, typical, LAMBDAS))
    theirs *= len(members) / sample * 6 / typical.sum(1).mean()
    what = "every subset of 12 datasets x 1,000 samples, 7 lambdas, 300 validation rows, best partition into each m"
    note = (
        f"{sample} subsets by scipy L-BFGS along the same path, multiplied by rows; ours validates and partitions too"
    )
    return [
        Row(f"{what}, against L-BFGS one at a time", ours, theirs, theirs / ours, 30.0, "at least", note=note),
        Row(f"{what}, in all", ours, None, ours, 20.0),
    ]


def many_datasets(count: int) -> None:
    """``count`` subsets of 60 of 200 datasets x 200 samples, 7 lambdas; prints seconds and peak memory in GB."""
    random = np.random.default_rng(2)
    members = random.permuted(np.tile(np.arange(200) < 60, (count, 1)), axis=1)
    train, validation = make_features(200, 200, 400), make_features(200, 100, 400, seed=1)
    estimator = GroupEstimator(train, validation, PATH, times(train, 60), seed=0)
    begin = time.perf_counter()
    estimator.solve(members, progress=lambda done, of: print(f"{done} of {of}", file=sys.stderr))
    print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def two_hundred(count: int = 500) -> list[Row]:
    """Memory and time of 5,000 subsets of 200 datasets, in a process of its own."""
    call = f"from benchmarks.engine.solver import many_datasets; many_datasets({count})"
    output = subprocess.run([sys.executable, "-c", call], check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, memory = map(float, output.split())
    seconds *= 5000 / count
    note = f"{count} of them, multiplied"
    what = "5,000 subsets of 60 of 200 datasets x 200 samples, 7 lambdas"
    return [
        Row(what, seconds, None, seconds, 600.0, note=note),
        Row(f"{what}, peak memory", memory, None, memory, 4.0, unit="GB", note="chunks bound it, not the subsets"),
    ]


def growth() -> list[Row]:
    """Time with twice the subsets, datasets, samples and dimensions."""
    sizes = {"subsets": 500, "datasets": 10, "samples": 500, "dim": 200}

    def timed(sizes: dict[str, int]) -> Callable[[], object]:
        tables = make_features(sizes["datasets"], sizes["samples"], sizes["dim"])
        members, lambdas = halves(sizes["subsets"], sizes["datasets"]), [lam * unit_of(tables) for lam in LAMBDAS]
        return lambda: PathSolver(tables).solve(members, lambdas)

    rows = []
    for what in sizes:
        base, double = alternate(timed(sizes), timed({**sizes, what: 2 * sizes[what]}))
        note = ", ".join(f"{count} {name}" for name, count in sizes.items())
        rows.append(Row(f"solver, twice the {what}", double, base, double / base, 2.5, note=f"from {note}"))
    return rows


def rows() -> list[Row]:
    """All of them."""
    return [*two_thousand(), *every_subset(), *two_hundred(), *growth()]


if __name__ == "__main__":
    for row in rows():
        print(row)
