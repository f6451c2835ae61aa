"""What partitions really reach: the chosen one against one group, a group each, random ones, spectral clustering.

A partition's loss is the mean over datasets of the loss under the own group's adapter, as a share of the label entropy.
Every seed gives one; a difference counts where it is beyond the seeds' noise, by a paired t-test over them. Partitions
that share a group share its adapters, and what they share cancels.
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

    ``noise`` is half the width of its interval at ``LEVEL`` over seeds; ``clear``: the difference is beyond it.
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
        against_chosen: of the test loss; None for the chosen one.
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
            against_chosen=None if name == CHOSEN else difference(scores[name]["test"] - scores[CHOSEN]["test"]),
        )
        for name in order
    ]


def difference(by_seed: np.ndarray) -> Difference:
    """The mean of differences [S], and whether it is beyond their noise: Student's t with S - 1 degrees of freedom."""
    count = len(by_seed)
    factor = float(student.ppf((1 + LEVEL) / 2, count - 1))
    value, noise = float(by_seed.mean()), factor * float(by_seed.std(ddof=1)) / count**0.5
    return Difference(value, noise, abs(value) > noise)


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
