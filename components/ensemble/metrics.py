"""How good predictions are, with bootstrap intervals.

Every metric here is a function of *sums over rows*: accuracy of the number right, macro-F1 of three counts a class,
calibration error of one sum a bin. ``Scored.terms`` gives what each row adds, ``finish`` turns sums into the metric. A
bootstrap resample is then a row of counts (how often each row was drawn), a thousand of them one matrix product, and
the point value is the resample in which every row was drawn once: value and interval cannot disagree in definition.
The price is that macro-F1 is written out here rather than called from scikit-learn; the tests hold it to theirs.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from components.intervals import Interval, interval
from components.tables import Logits

Array = NDArray[np.float64]
Metric = Literal["accuracy", "macro_f1", "cross_entropy", "ece"]

METRICS: tuple[Metric, ...] = ("accuracy", "macro_f1", "cross_entropy", "ece")
BINS = 15
CHUNK = 100  # resamples held in memory at a time


@dataclass(frozen=True)
class Scored:
    """One method's predictions of one dataset's rows, all ``[N]``: ``loss`` is the cross-entropy in nats."""

    row: NDArray[np.int64]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    loss: Array
    confidence: Array
    classes: int

    def terms(self, metric: Metric) -> Array:
        """What each row adds to the sums the metric is made of, ``[N, K]``; the first column is 1, the row itself."""
        right = (self.predicted == self.label).astype(np.float64)
        if metric == "accuracy":
            columns = right[:, None]
        elif metric == "cross_entropy":
            columns = self.loss[:, None]
        elif metric == "ece":
            edge = np.clip(np.ceil(self.confidence * BINS).astype(int) - 1, 0, BINS - 1)
            columns = np.eye(BINS)[edge] * (self.confidence - right)[:, None]
        else:
            truth, answer = np.eye(self.classes)[self.label], np.eye(self.classes)[self.predicted]
            columns = np.hstack([truth * answer, truth + answer])
        return np.hstack([np.ones((len(self.label), 1)), columns])


def score(row: ArrayLike, logits: ArrayLike, label: ArrayLike) -> Scored:
    """Predictions from logits.

    Args:
        row: row ids, ``[N]``.
        logits: ``[N, C]``; the most likely class is the prediction, the first one of equals.
        label: ``[N]``, in ``0 .. C - 1``.

    Raises:
        ValueError: no rows, shapes that do not fit each other, labels out of range, or logits that are not finite.
    """
    z, y, ids = np.asarray(logits, np.float64), np.asarray(label, np.int64), np.asarray(row, np.int64)
    if z.ndim != 2 or not z.size or y.shape != z.shape[:1] or ids.shape != y.shape:
        raise ValueError(f"shapes do not fit: row {ids.shape}, logits {z.shape}, label {y.shape}")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise ValueError(f"labels must be in 0 .. {z.shape[1] - 1}, found {y.min()} .. {y.max()}")
    if not np.isfinite(z).all():
        raise ValueError("logits must be finite")
    log_chance = log_softmax(z, axis=1)
    n = np.arange(len(y))
    return Scored(ids, y, z.argmax(1), -log_chance[n, y], np.exp(log_chance.max(1)), z.shape[1])


def scored_tables(tables: Mapping[str, Logits]) -> dict[str, Scored]:
    """Each dataset's predictions from its logits."""
    return {name: score(table.row, table.logits, table.label) for name, table in tables.items()}


def finish(metric: Metric, sums: Array) -> Array:
    """The metric from sums over rows, ``[B, K]`` -> ``[B]``.

    ``accuracy`` and ``cross_entropy`` are means. ``ece`` is the expected calibration error (Naeini et al., 2015): the
    share of rows in each of 15 equally wide bins of confidence times |mean confidence - accuracy| there, summed.
    ``macro_f1`` is the mean of ``2 TP / (2 TP + FP + FN)`` over the classes that are present, as truth or as answer.
    """
    rows, rest = sums[:, 0], sums[:, 1:]
    if metric in ("accuracy", "cross_entropy"):
        return np.asarray(rest[:, 0] / rows)
    if metric == "ece":
        return np.asarray(np.abs(rest).sum(1) / rows)
    hits, mentions = np.split(rest, 2, axis=1)
    present = mentions > 0
    f1 = np.divide(2 * hits, mentions, out=np.zeros_like(hits), where=present)
    return np.asarray(f1.sum(1) / present.sum(1))


def value(scored: Scored, metric: Metric) -> float:
    """The metric on the rows as they are."""
    return float(finish(metric, scored.terms(metric).sum(0, keepdims=True))[0])


def intervals(scored: Scored, *, resamples: int, seed: int, stream: str = "") -> dict[Metric, Interval]:
    """Every metric with its interval; ``stream`` (the dataset's name) and ``seed`` fix the resamples."""

    samplers = [_sampler(scored, metric) for metric in METRICS]
    draws = bootstrap(
        lambda counts: np.stack([sampler(counts) for sampler in samplers], axis=1),
        len(scored.row),
        resamples=resamples,
        seed=seed,
        stream=stream,
    )
    return {metric: interval(value(scored, metric), draws[:, k]) for k, metric in enumerate(METRICS)}


def average(scored: Mapping[str, Scored], metric: Mapping[str, Metric], *, resamples: int, seed: int) -> Interval:
    """Mean over datasets of each dataset's own ``metric``, rows resampled within each dataset independently.

    The interval is about other test rows of the same datasets; it says nothing about other datasets.
    """
    draws = [
        bootstrap(_sampler(one, metric[name]), len(one.row), resamples=resamples, seed=seed, stream=name)
        for name, one in scored.items()
    ]
    values = [value(one, metric[name]) for name, one in scored.items()]
    return interval(float(np.mean(values)), np.mean(draws, axis=0))


def _sampler(scored: Scored, metric: Metric) -> Callable[[Array], Array]:
    terms = scored.terms(metric)
    return lambda counts: finish(metric, counts @ terms)


def bootstrap(statistic: Callable[[Array], Array], rows: int, *, resamples: int, seed: int, stream: str) -> Array:
    """``statistic`` of every resample of ``rows`` rows, ``[resamples, ...]``; it takes counts ``[B, rows]``.

    Equal ``rows``, ``seed`` and ``stream`` draw equal resamples, which is what pairs two methods.
    """
    return np.concatenate([statistic(counts) for counts in _counts(rows, resamples, seed, stream)])


def _counts(rows: int, resamples: int, seed: int, stream: str) -> Iterator[Array]:
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = rng.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)
