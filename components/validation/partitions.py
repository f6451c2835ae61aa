"""What partitions really reach: the chosen one against one group, a group each, random ones, spectral clustering.

A partition's loss is the mean over datasets of the loss under the own group's adapter, as a share of the label entropy.
Every seed gives one; a difference counts where it is beyond the seeds' noise, by a paired t-test over them. Partitions
that share a group share its adapters, and what they share cancels. Of random partitions the mean counts, and beside the
seeds' noise that of which ones were drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from components.intervals import LEVEL
from components.trials import Trials
from components.validation.subsets import CHOSEN, EACH, ONE, RANDOM, SPECTRAL, Groups


@dataclass(frozen=True)
class Difference:
    """Another partition's loss minus the chosen one's: positive speaks for the chosen one.

    ``noise`` is half the width of its interval at ``LEVEL``; ``clear``: the difference is beyond it.
    """

    value: float
    noise: float
    clear: bool


@dataclass(frozen=True)
class PartitionResult:
    """One partition: losses as shares of the label entropy, mean over datasets and seeds.

    Attributes:
        adapters: how many groups; of the random partitions' mean, the same number.
        accuracy_spread, spread: standard deviation over seeds of the accuracy, and of the test loss.
        against_chosen: of the test loss; None for the chosen one, and for one that is the same.
    """

    name: str
    adapters: int
    estimated: float
    validation: float
    test: float
    accuracy: float
    accuracy_spread: float
    spread: float
    against_chosen: Difference | None


def compare_partitions(
    partitions: Mapping[str, Groups],
    names: Sequence[str],
    trials: Trials,
    estimated: np.ndarray,
    entropy: np.ndarray,
) -> list[PartitionResult]:
    """The real results of every partition, the chosen one first; random ones also as their mean, ``random``.

    Args:
        partitions: name -> groups; each group is a subset of the trials.
        names: n datasets.
        estimated: the surrogate's validation loss in nats, [K, n].
        entropy: nats of each dataset's labels, [n].
    """
    scores = {name: _scores(groups, names, trials, estimated, entropy) for name, groups in partitions.items()}
    adapters = {name: len(groups) for name, groups in partitions.items()}
    drawn = [name for name in partitions if name.startswith(f"{RANDOM}-")]
    if drawn:
        adapters[RANDOM] = adapters[CHOSEN]
        scores[RANDOM] = {key: np.mean([scores[name][key] for name in drawn], axis=0) for key in scores[CHOSEN]}

    def against(name: str) -> Difference | None:
        if _same(partitions.get(name), partitions[CHOSEN]):
            return None
        each = [scores[one]["test"] - scores[CHOSEN]["test"] for one in (drawn if name == RANDOM else [name])]
        return difference(np.array(each))

    place = {name: k for k, name in enumerate((CHOSEN, ONE, EACH, SPECTRAL, RANDOM))}
    order = sorted(scores, key=lambda name: (place.get(name, len(place)), name))
    return [
        PartitionResult(
            name=name,
            adapters=adapters[name],
            estimated=float(scores[name]["estimated"].mean()),
            validation=float(scores[name]["validation"].mean()),
            test=float(scores[name]["test"].mean()),
            accuracy=float(scores[name]["accuracy"].mean()),
            accuracy_spread=float(scores[name]["accuracy"].std(ddof=1)),
            spread=float(scores[name]["test"].std(ddof=1)),
            against_chosen=against(name),
        )
        for name in order
    ]


def difference(apart: np.ndarray) -> Difference:
    """The mean of differences, and whether it is beyond their noise by Student's t.

    The variance of the mean is that between seeds plus, where several partitions were drawn, that between their means;
    the degrees of freedom of such a sum are Satterthwaite's (Biometrics Bulletin 2, 1946).

    Args:
        apart: over S seeds, [S], or [P, S] of P partitions drawn at random.
    """
    apart = np.atleast_2d(apart)
    sides = [side for side in (apart.mean(axis=0), apart.mean(axis=1)) if len(side) > 1]
    variance = np.array([side.var(ddof=1) / len(side) for side in sides])
    freedom = np.array([len(side) - 1 for side in sides])
    value, total = float(apart.mean()), float(variance.sum())
    factor = float(student.ppf((1 + LEVEL) / 2, total**2 / (variance**2 / freedom).sum())) if total else 0.0
    noise = factor * total**0.5
    return Difference(value, noise, abs(value) > noise)


def _same(one: Groups | None, other: Groups) -> bool:
    return one is not None and {frozenset(group) for group in one} == {frozenset(group) for group in other}


def _scores(
    groups: Groups, names: Sequence[str], trials: Trials, estimated: np.ndarray, entropy: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean over datasets of each quantity, [S] each."""
    rows = np.array([_row_of(group, names, trials) for group in groups])
    of_dataset = [next(row for row, group in zip(rows, groups, strict=True) if name in group) for name in names]
    i = np.arange(len(names))
    return {
        "estimated": (estimated[of_dataset, i] / entropy).mean(keepdims=True),
        "validation": (trials.validation[of_dataset, :, i] / entropy[:, None]).mean(axis=0),
        "test": (trials.test[of_dataset, :, i] / entropy[:, None]).mean(axis=0),
        "accuracy": trials.accuracy[of_dataset, :, i].mean(axis=0),
    }


def _row_of(group: Sequence[str], names: Sequence[str], trials: Trials) -> int:
    """Where the trials have the subset."""
    inside = np.array([name in group for name in names])
    return int(np.flatnonzero((trials.members == inside).all(axis=1))[0])
