"""How well predicted losses agree with those of real fine-tunes, and how much of the disagreement is the truth's noise.

Everything is said of losses as shares of the entropy of their dataset's labels, *centred*: minus the dataset's mean
over the subsets that hold it. So a predictor gets nothing for knowing that one dataset is harder than another, and of
a constant nothing is left. All (dataset, subset) cells are then one sample.

**Reliability.** A fine-tune's loss is what its subset reaches plus noise: order of batches, early stopping. By one-way
analysis of variance over S seeds a subset (Searle, Casella and McCulloch, *Variance Components*, 1992), with mean
squares between subsets B and within them W pooled over datasets, the mean over seeds has the reliability ``1 - W / B``:
the share of its variance that another set of seeds would show again. Predictions can correlate with the means at most
as its square root, so a correlation divided by that is what would be seen without noise (Spearman, 1904). For rank
correlations it is an approximation.

**Intervals** are percentiles over bootstrap resamples of the *subsets*: the cells of a subset share its adapters, so
they are drawn together. They tell of other subsets and seeds, not of other datasets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import rankdata

from components.intervals import Interval, interval

LEAST_RELIABILITY = 0.1  # a resample below says nothing about a corrected correlation


@dataclass(frozen=True)
class Cells:
    """Losses of K subsets, as shares of the label entropy.

    Attributes:
        members: bool [K, n].
        true: float64 [K, S, n], S fine-tunes a subset; NaN outside.
        predicted: by predictor, float64 [K, n]; lower is better. Only the order of a similarity means anything.
        resampled: whether the subsets were drawn with replacement, and some are there several times.
    """

    members: np.ndarray
    true: np.ndarray
    predicted: Mapping[str, np.ndarray]
    resampled: bool = False

    def of(self, subsets: np.ndarray) -> "Cells":
        """The cells of some subsets, by index or mask."""
        predicted = {name: values[subsets] for name, values in self.predicted.items()}
        return Cells(self.members[subsets], self.true[subsets], predicted, self.resampled)

    def resample(self, rng: np.random.Generator) -> "Cells":
        """As many subsets, drawn with replacement."""
        count = len(self.members)
        return replace(self.of(rng.integers(count, size=count)), resampled=True)

    def of_dataset(self, i: int) -> "Cells":
        """The cells of one dataset."""
        held = self.members[:, i]
        predicted = {name: values[held][:, [i]] for name, values in self.predicted.items()}
        return Cells(self.members[held][:, [i]], self.true[held][:, :, [i]], predicted, self.resampled)


@dataclass(frozen=True)
class Agreement:
    """One predictor's agreement with the truth; None where a number does not exist (a constant has no correlation).

    ``dataset_mean``: of the datasets' own Pearson correlations, so that one whose losses differ more counts no more.
    """

    pearson: Interval | None
    spearman: Interval | None
    corrected_pearson: Interval | None
    corrected_spearman: Interval | None
    dataset_mean: Interval | None


def centred(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """``values`` [K, n] minus each dataset's mean over the subsets that hold it; 0 outside."""
    counts = np.maximum(members.sum(axis=0), 1)
    inside = np.where(members, values, 0.0)
    return np.where(members, inside - inside.sum(axis=0) / counts, 0.0)


def reliability(cells: Cells) -> float:
    """Share of the variance of the mean true loss that is not noise; NaN where too little was measured.

    Below zero where seeds differ more than subsets do.
    """
    seeds, held = cells.true.shape[1], cells.members
    mean = np.where(held, cells.true.mean(axis=1), 0.0)
    between = seeds * (centred(mean, held) ** 2).sum()
    within = np.where(held[:, None], (cells.true - mean[:, None]) ** 2, 0.0).sum()
    counts = held.sum(axis=0)
    apart = np.maximum(counts - 1, 0).astype(float)
    if cells.resampled:  # a bootstrap sample of c has (c - 1) / c of the spread, on average
        apart *= apart / np.maximum(counts, 1)
    freedom = apart.sum(), held.sum() * (seeds - 1)
    if not all(freedom) or between == 0:
        return float("nan")
    return float(1 - (within / freedom[1]) / (between / freedom[0]))


def correlation(cells: Cells, predictor: str, *, ranks: bool) -> float:
    """Pearson's (of ranks: Spearman's) correlation of predicted with mean true losses, centred; NaN for a constant."""
    held = cells.members
    pair = [centred(cells.predicted[predictor], held)[held], centred(cells.true.mean(axis=1), held)[held]]
    # What is left of a constant after centring is rounding.
    if len(pair[0]) < 3 or any(np.ptp(side) < 1e-12 for side in pair):
        return float("nan")
    if ranks:
        pair = [rankdata(np.round(side, 12)) for side in pair]
    return float(np.corrcoef(*pair)[0, 1])


def dataset_mean(cells: Cells, predictor: str) -> float:
    """The mean over datasets of Pearson's correlation within each; NaN where none has one."""
    ours = centred(cells.predicted[predictor], cells.members)
    true = centred(cells.true.mean(axis=1), cells.members)
    size = np.sqrt((ours**2).sum(axis=0) * (true**2).sum(axis=0))
    known = (size > 1e-12) & (cells.members.sum(axis=0) > 2)
    return float(((ours * true).sum(axis=0)[known] / size[known]).mean()) if known.any() else float("nan")


def agreement(cells: Cells, predictor: str, *, resamples: int, seed: int) -> Agreement:
    """A predictor's correlations with the truth, raw and corrected for the truth's noise, with intervals."""
    kinds = {"pearson": False, "spearman": True}
    found: dict[str, Interval | None] = {}
    for kind, ranks in kinds.items():
        raw = partial(correlation, predictor=predictor, ranks=ranks)
        corrected = partial(_corrected, predictor=predictor, ranks=ranks)
        found[kind] = with_interval(cells, raw, resamples=resamples, seed=seed)
        found[f"corrected_{kind}"] = with_interval(cells, corrected, resamples=resamples, seed=seed)
    alike = partial(dataset_mean, predictor=predictor)
    return Agreement(**found, dataset_mean=with_interval(cells, alike, resamples=resamples, seed=seed))


def advantage(cells: Cells, ours: str, other: str, *, resamples: int, seed: int) -> Interval | None:
    """How much higher one predictor's Pearson correlation is than another's, on the same resamples."""

    def difference(part: Cells) -> float:
        return correlation(part, ours, ranks=False) - correlation(part, other, ranks=False)

    return with_interval(cells, difference, resamples=resamples, seed=seed)


def relative_error(cells: Cells, predictor: str) -> float:
    """Mean absolute error by mean true loss within each dataset, mean over datasets."""
    held = cells.members
    off = np.where(held, np.abs(cells.predicted[predictor] - cells.true.mean(axis=1)), 0.0).sum(axis=0)
    total = np.where(held, cells.true.mean(axis=1), 0.0).sum(axis=0)
    seen = held.any(axis=0)
    return float((off[seen] / total[seen]).mean())


def noise_error(cells: Cells) -> float:
    """What :func:`relative_error` is expected to be of a perfect prediction: the mean over S seeds is not the truth.

    The noise is taken for normal and alike for all subsets of a dataset, so its mean size is ``sqrt(2 / pi)`` of its
    pooled standard deviation; where it is not alike that is a little too much. NaN with one seed.
    """
    held, seeds = cells.members, cells.true.shape[1]
    if seeds < 2:
        return float("nan")
    counts = held.sum(axis=0)
    seen = counts > 0
    within = np.where(held, cells.true.var(axis=1, ddof=1), 0.0).sum(axis=0)[seen] / counts[seen]
    loss = np.where(held, cells.true.mean(axis=1), 0.0).sum(axis=0)[seen] / counts[seen]
    return float((np.sqrt(2 / np.pi * within / seeds) / loss).mean())


def with_interval(cells: Cells, statistic: Callable[[Cells], float], *, resamples: int, seed: int) -> Interval | None:
    """A statistic with its interval over resampled subsets; None where it, or one resample in ten, does not exist."""
    value = statistic(cells)
    if not np.isfinite(value):
        return None
    rng = np.random.default_rng(seed)
    draws = np.array([statistic(cells.resample(rng)) for _ in range(resamples)])
    known = draws[np.isfinite(draws)]
    return interval(value, known) if len(known) >= 0.9 * resamples else None


def _corrected(cells: Cells, predictor: str, ranks: bool) -> float:
    share = reliability(cells)
    if not share > LEAST_RELIABILITY:
        return float("nan")
    return float(np.clip(correlation(cells, predictor, ranks=ranks) / np.sqrt(share), -1, 1))
