"""Which affinity: means or a regression, of standardised losses or not, of all subsets or a sample of them.

The estimates of all subsets tell what every partition costs, and which is best. For each affinity and each number of
groups, the semidefinite relaxation is rounded as the product does for many datasets. Told is by how much the estimated
loss of these groups is above the best partition's, before and after a local search from there. ``similarity`` is the
cosine of mean gradients. No fine-tune is made.
"""

from typing import Any

import numpy as np
import typer
from safetensors.numpy import load_file

from benchmarks.truth import setting
from benchmarks.truth.markdown import mean, spread
from benchmarks.truth.planned import Planned
from benchmarks.truth.setting import Setting
from components.artifacts import load
from components.config import RunConfig
from components.errors import UserError
from components.inputs import read_split
from components.partition.exact import best_partitions, bit_masks
from components.partition.groups import Groups
from components.partition.rounding import round_relaxation
from components.partition.sdp import normalise, relax
from components.partition.search import Memo, improved, together, total
from components.subsets import choose_subsets
from components.surrogate.affinity import affinity
from components.surrogate.estimate import TABLE
from components.tables import mean_pulls
from components.validation.predictors import cosines

COUNTS = (100, 400)  # sampled subsets; the single datasets and all together are estimated besides


def affinities(to: Setting, draws: int) -> None:
    """Compare affinities on one run's estimates, and keep the table.

    Args:
        draws: samples of subsets of each size.

    Raises:
        typer.BadParameter: there are too many datasets for every subset to be estimated, or too few to sample subsets.
    """
    config, n = to.config(), len(to.datasets)
    surrogate = RunConfig.model_validate(config).surrogate
    if n > surrogate.exhaustive_up_to:
        most = surrogate.exhaustive_up_to
        raise typer.BadParameter(f"this takes estimates of every subset: name at most {most} datasets")
    try:
        samples = [
            [choose_subsets(n, count, surrogate.subset_size, surrogate.pair_coverage, 1, seed) for seed in range(draws)]
            for count in COUNTS
        ]
    except UserError as error:
        raise typer.BadParameter(f"{error.what}: name more datasets") from error
    planned = Planned.of(to.root, config)
    members = planned.members
    step, prepared = members.step, members.prepared
    table = load_file(load(step.store, setting.keys_of(planned.summary)["affinity"]).folder / TABLE)
    entropy = np.array([dataset.entropy() for dataset in prepared.datasets])
    inside, loss = table["members"], table["loss"][0] / entropy
    cost = costs(inside, loss)
    best = best_partitions(cost)
    similarity = cosines(mean_pulls(read_split(members.features, "train")))
    rows = [row("similarity", None, [losses(cost, best, similarity, step.config.seed)])]
    for drawn in [*samples, [inside]]:
        found: dict[str, list[dict[str, float]]] = {}
        for seed, shown in enumerate(drawn):
            at = np.searchsorted(bit_masks(inside), bit_masks(shown))
            for name, matrix in matrices(shown, loss[at], prepared.names).items():
                found.setdefault(name, []).append(losses(cost, best, matrix, seed))
        rows += [row(name, len(drawn[0]), told) for name, told in found.items()]
    values = [value for value, _ in best]
    to.keep("affinities", {**planned.about(), "draws": draws, "best": values, "rows_of_table": rows})


def row(name: str, subsets: int | None, told: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation over the samples."""
    over = {key: [one[key] for one in told] for key in told[0]}
    numbers = {key: {"mean": mean(values), "spread": spread(values)} for key, values in over.items()}
    return {"affinity": name, "subsets": subsets, "samples": len(told), **numbers}


def costs(inside: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """The cost of every group by its bit mask, float64 [2**n]: the sum of its datasets' losses, by n.

    Args:
        inside: every subset, bool [2**n - 1, n].
        loss: of each dataset in each subset, [2**n - 1, n].
    """
    n = inside.shape[1]
    found = np.zeros(2**n)
    found[bit_masks(inside)] = np.where(inside, loss, 0).sum(axis=1) / n
    return found


def matrices(inside: np.ndarray, loss: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The affinities [n, n] that are compared, from the losses [K, n] of some subsets, bool [K, n].

    Standardised: a dataset's losses have deviation 1, so that all datasets weigh alike; that is the product's.
    """
    deviation = np.array([loss[inside[:, i], i].std() for i in range(len(names))])[:, None]
    means, slopes = affinity(inside, loss, names).matrix, regression(inside, loss)
    return {
        "means, standardised": means,
        "means": means * deviation,
        "regression, standardised": slopes / deviation,
        "regression": slopes,
    }


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
    """What groups made of an affinity cost more than the best partitions do: mean over 2 .. n - 1 groups.

    Args:
        cost: of every group, see :func:`costs`.
        best: the cheapest partitions, see :func:`~components.partition.exact.best_partitions`.
    """
    memo = Memo(lambda groups: np.array([cost[sum(1 << i for i in group)] for group in groups]))
    rounded, searched, scaled = [], [], normalise(matrix)
    for m in range(2, len(matrix)):
        groups = round_relaxation(scaled, relax(scaled, groups=m).matrix, m, seed=seed)
        rounded.append(total(memo, groups) - best[m - 1][0])
        searched.append(total(memo, together(memo, [improved(memo, groups)])[0]) - best[m - 1][0])
    return {"rounded": mean(rounded), "searched": mean(searched)}
