"""Forward selection and leave-one-out over the surrogate: which datasets lower one dataset's estimated loss.

Each round of forward selection adds the dataset whose company lowers the target's estimated validation loss most
(GradEx, arXiv 2409.19458). All candidates of a round are columns of one batched solve down the path of lambdas. (To
begin each lambda at the solution of the set they are added to was tried: it saves 5 to 12 % of the iterations and costs
a matrix product a lambda, so nothing is gained.)

**Where to stop.** The best of many candidates is better by chance alone, so the loss it was chosen by does not tell
whether it helps. Each round's gain is therefore *cross-fitted*: on each half of the target's validation rows the best
candidate is chosen anew, lambda included, and its gain over the set so far is measured on the other half. The order
ends where that gain is not larger than its standard error. The price is half the rows for every choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.estimator import GroupEstimator


@dataclass(frozen=True)
class Addition:
    """A dataset added.

    Attributes:
        loss: the target's estimated validation loss with it and all before, nats.
        gain: how much lower the loss is than before it, cross-fitted, with its ``standard_error``.
    """

    name: str
    loss: float
    gain: float
    standard_error: float


@dataclass(frozen=True)
class Order:
    """The order in which datasets are added to the target.

    Attributes:
        alone: the target's estimated loss without company, nats.
        additions: all others, the best first.
        stop: how many of them to keep.
    """

    alone: float
    additions: list[Addition]
    stop: int

    @property
    def chosen(self) -> list[str]:
        """The datasets to keep."""
        return [addition.name for addition in self.additions[: self.stop]]


@dataclass(frozen=True)
class Effect:
    """What one dataset's presence does: the fall of the target's loss, nats, with its standard error."""

    gain: float
    standard_error: float


def forward_selection(estimator: GroupEstimator, target: int, names: Sequence[str]) -> Order:
    """Add the datasets one after the other, each time the one that helps the target most.

    Args:
        estimator: of the n datasets.
        target: its position.
        names: of the datasets.
    """
    subset = np.arange(len(names)) == target
    before = estimator.row_losses(subset[None])[0][target]
    alone, additions = float(before[0].mean()), list[Addition]()
    while not subset.all():
        candidates = np.flatnonzero(~subset)
        rounds = estimator.row_losses(_with_each(subset, candidates))
        rows = [found[target] for found in rounds]
        best = int(np.argmin([losses[0].mean() for losses in rows]))
        gain, error = _cross_fitted(rows, before, estimator.halves[target])
        additions.append(Addition(names[candidates[best]], float(rows[best][0].mean()), gain, error))
        subset = _with_each(subset, candidates[[best]])[0]
        before = rows[best]
    worth = [addition.gain > addition.standard_error for addition in additions]
    return Order(alone, additions, worth.index(False) if False in worth else len(worth))


def leave_one_out(estimator: GroupEstimator, target: int, names: Sequence[str]) -> dict[str, Effect]:
    """What each other dataset does for the target where all others are there: loss without it minus loss with it."""
    everything = np.ones(len(names), dtype=bool)
    others = [i for i in range(len(names)) if i != target]
    whole = estimator.row_losses(everything[None])[0][target][0]
    without = np.tile(everything, (len(others), 1))
    without[np.arange(len(others)), others] = False
    found = estimator.row_losses(without) if others else []
    return {names[i]: paired(rows[target][0] - whole) for i, rows in zip(others, found, strict=True)}


def _with_each(subset: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The subset with one candidate more, bool [C, n]."""
    members = np.tile(subset, (len(candidates), 1))
    members[np.arange(len(candidates)), candidates] = True
    return members


def _cross_fitted(rows: Sequence[np.ndarray], before: np.ndarray, half: np.ndarray) -> tuple[float, float]:
    """Gain of the candidate that one half of the rows chooses, on the other half, both ways; with its standard error.

    Args:
        rows: of each candidate, the target's losses [3, M]: lambda chosen on all rows, on half 0, on half 1.
        before: the same without any candidate.
        half: which rows are in half 1, bool [M].
    """
    gains, variances = [], []
    for which, chosen_on in ((1, ~half), (2, half)):
        best = int(np.argmin([losses[which, chosen_on].mean() for losses in rows]))
        fall = (before[which] - rows[best][which])[~chosen_on]
        gains.append(fall.mean())
        variances.append(fall.var(ddof=1) / len(fall) if len(fall) > 1 else 0.0)
    return float(np.mean(gains)), float(np.sqrt(np.sum(variances)) / len(gains))


def paired(differences: np.ndarray) -> Effect:
    """The mean of independent differences, [N], with its standard error."""
    return Effect(float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences))))
