"""What real fine-tunes reached: the trials that `fine_tune` leaves, as arrays.

A trial is one fine-tune of one subset with one seed. Its facts: ``loss`` (mean cross-entropy, nats) and ``accuracy``,
by split and dataset of the subset; ``flops`` and ``seconds`` of training; ``distance`` from theta*.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.step import Step


@dataclass(frozen=True)
class Trials:
    """Fine-tunes of K subsets of n datasets, S seeds each.

    Attributes:
        members: bool [K, n].
        validation, test: mean loss in nats, float64 [K, S, n]; NaN where the dataset is not in the subset.
        accuracy: on the test rows, likewise.
        flops: of training, float64 [K, S].
        seconds: likewise; NaN where it was not measured.
        distance: from theta*, likewise.
    """

    members: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    accuracy: np.ndarray
    flops: np.ndarray
    seconds: np.ndarray
    distance: np.ndarray

    @property
    def seeds(self) -> int:
        """Fine-tunes a subset."""
        return self.validation.shape[1]


def trial_label(name: str, seed: int) -> str:
    """The label under which a trial is passed on."""
    return f"trial/{name}/{seed}"


def read_trials(
    step: Step, references: Mapping[str, str], names: Sequence[str], subsets: Mapping[str, Sequence[str]], seeds: int
) -> Trials:
    """The trials of every subset, in the order of ``subsets``.

    Args:
        names: n datasets.
        subsets: name of the job -> its datasets.
        seeds: how many there are of each, from the config's seed on.
    """
    shape = (len(subsets), seeds)
    members = np.array([[name in inside for name in names] for inside in subsets.values()], dtype=bool)
    losses = {split: np.full((*shape, len(names)), np.nan) for split in ("validation", "test", "accuracy")}
    numbers = {key: np.full(shape, np.nan) for key in ("flops", "seconds", "distance")}
    for k, (name, inside) in enumerate(subsets.items()):
        for s, seed in enumerate(seeds_of(step.config.seed, seeds)):
            facts = step.load(references, trial_label(name, seed)).facts
            at = [names.index(dataset) for dataset in inside]
            for split in ("validation", "test"):
                losses[split][k, s, at] = [facts["loss"][split][dataset] for dataset in inside]
            losses["accuracy"][k, s, at] = [facts["accuracy"]["test"][dataset] for dataset in inside]
            for key, table in numbers.items():
                table[k, s] = np.nan if facts[key] is None else facts[key]
    return Trials(members, **losses, **numbers)


def seeds_of(seed: int, count: int) -> list[int]:
    """The seeds of a subset's fine-tunes; the first is the config's, with which groups are trained."""
    return list(range(seed, seed + count))
