"""Which affinity: means or a regression, of all subsets or of a sample of them; what groups made of each would lose.

The estimates of all subsets tell what every partition costs, and which is best. For each kind of affinity and number of
groups, the semidefinite relaxation is rounded as the product does; what the groups cost more than the best partition is
the kind's loss, before and after the local search. ``similarity``: mean gradients' cosine. No fine-tune is made.
"""

import time

import numpy as np
from safetensors.numpy import load_file

from benchmarks.truth import setting
from benchmarks.truth.members import Members
from benchmarks.truth.setting import Setting
from benchmarks.truth.steps import run_until
from components.artifacts import load
from components.inputs import read_split
from components.partition.exact import best_partitions, bit_masks
from components.partition.groups import Groups
from components.partition.rounding import round_relaxation
from components.partition.sdp import normalise, relax
from components.partition.search import Memo, local_search, total
from components.subsets import choose_subsets
from components.surrogate.affinity import affinity
from components.surrogate.estimate import TABLE
from components.tables import mean_pulls

COUNTS = (100, 400)


def affinities(to: Setting, draws: int) -> None:
    """Compare the kinds of affinity on one run's estimates, and keep the table.

    Args:
        draws: samples of subsets; each row is their mean.
    """
    started, config = time.monotonic(), to.config()
    summary, _ = run_until(config, to.root, "partition")
    members = Members.of(config, to.root, summary)
    step, prepared = members.step, members.prepared
    table = load_file(load(step.store, setting.keys_of(summary)["affinity"]).folder / TABLE)
    entropy = np.array([dataset.entropy() for dataset in prepared.datasets])
    inside, loss, n = table["members"], table["loss"][0] / entropy, len(entropy)
    cost = np.zeros(2**n)
    cost[bit_masks(inside)] = np.where(inside, loss, 0).sum(axis=1) / n
    best = best_partitions(cost)
    pulls = mean_pulls(read_split(members.features, "train"))
    direction = pulls / np.linalg.norm(pulls, axis=1, keepdims=True)
    rows = [
        {"affinity": "similarity", "subsets": None, **losses(cost, best, direction @ direction.T, step.config.seed)}
    ]
    surrogate = step.config.surrogate
    for count in (*COUNTS, len(inside)):
        found: dict[str, list[dict[str, float]]] = {"means": [], "regression": []}
        for seed in range(draws if count < len(inside) else 1):
            shown = inside
            if count < len(inside):
                shown = choose_subsets(n, count, surrogate.subset_size, surrogate.pair_coverage, 1, seed)
            at = np.searchsorted(bit_masks(inside), bit_masks(shown))
            found["means"].append(losses(cost, best, affinity(shown, loss[at], prepared.names).matrix, seed))
            found["regression"].append(losses(cost, best, regression(shown, loss[at]), seed))
        for kind, told in found.items():
            mean = {key: float(np.mean([one[key] for one in told])) for key in told[0]}
            rows.append({"affinity": kind, "subsets": count, **mean})
    about = setting.about(config, summary, time.monotonic() - started)
    to.keep("affinities", {**about, "draws": draws, "best": [value for value, _ in best], "rows_of_table": rows})


def regression(inside: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """``B[i, j]``, float64 [n, n]: by how much dataset i's loss falls where j is there, fitted by least squares.

    Args:
        inside: bool [K, n].
        loss: of each dataset in each subset, [K, n]; not looked at outside the subset.
    """
    n = inside.shape[1]
    found = np.zeros((n, n))
    for i in range(n):
        own = inside[:, i]
        others = np.delete(inside[own], i, axis=1).astype(np.float64)
        company = np.column_stack([np.ones(len(others)), others])
        slopes = np.linalg.lstsq(company, loss[own, i], rcond=None)[0][1:]
        found[i, np.arange(n) != i] = -slopes
    return found


def losses(cost: np.ndarray, best: list[tuple[float, Groups]], matrix: np.ndarray, seed: int) -> dict[str, float]:
    """What groups made of an affinity cost more than the best partitions do: mean over 2 .. n - 1 groups."""
    memo = Memo(lambda groups: np.array([cost[sum(1 << i for i in group)] for group in groups]))
    rounded, searched, scaled = [], [], normalise(matrix)
    for m in range(2, len(matrix)):
        groups = round_relaxation(scaled, relax(scaled, groups=m).matrix, m, seed=seed)
        rounded.append(total(memo, groups) - best[m - 1][0])
        searched.append(total(memo, local_search(memo, groups)) - best[m - 1][0])
    return {"rounded": float(np.mean(rounded)), "searched": float(np.mean(searched))}
