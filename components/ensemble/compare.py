"""Whether one method is better than another on the same rows.

Two methods err on much the same rows, so the interval of their difference is far narrower than their own intervals
suggest; both are therefore resampled together. The p-value is a paired randomisation test (Noreen, 1989): were the two
methods alike, swapping their answers to any row would change nothing. For accuracy that is the sign-flip test on the
rows' correctness; the same swap works for macro-F1, where differences of rows mean nothing. The alternative, reading a
p-value off the bootstrap, tests at the wrong place (around the observed difference, not around zero).
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from components.ensemble.metrics import CHUNK, Array, Interval, Metric, Scored, bootstrap, finish, interval, value
from components.errors import UserError


@dataclass(frozen=True)
class Comparison:
    """``ours - baseline``: ``difference`` on average over datasets, ``by_dataset`` for each.

    ``p_value`` is two-sided, for the average; it is never below ``1 / (resamples + 1)``.
    """

    difference: Interval
    p_value: float
    by_dataset: dict[str, Interval]


def compare(
    ours: Mapping[str, Scored],
    baseline: Mapping[str, Scored],
    metric: Mapping[str, Metric],
    *,
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare two methods, dataset by dataset and on average, rows matched by their id.

    Args:
        ours, baseline: predictions of each dataset, in any row order.
        metric: the metric of each dataset.
        resamples: of the bootstrap and of the randomisation test.
        seed: of both.

    Raises:
        UserError: the two do not hold the same datasets, rows or labels; all such findings at once.
    """
    draws, swaps, by_dataset = [], [], {}
    for name, (mine, theirs) in _matched(ours, baseline).items():
        kind = metric[name]
        a, b = mine.terms(kind), theirs.terms(kind)
        draw = bootstrap(partial(_difference, kind, a, b), len(a), resamples=resamples, seed=seed, stream=name)
        by_dataset[name] = interval(value(mine, kind) - value(theirs, kind), draw)
        draws.append(draw)
        swaps.append(_swapped(kind, a, b, resamples=resamples, seed=seed, stream=name))
    observed = float(np.mean([one.value for one in by_dataset.values()]))
    as_extreme = np.abs(np.mean(swaps, axis=0)) >= abs(observed) - 1e-12  # equal but for rounding counts as equal
    p_value = (1 + int(as_extreme.sum())) / (1 + resamples)
    return Comparison(interval(observed, np.mean(draws, axis=0)), p_value, by_dataset)


def told(baseline: str, comparison: Comparison) -> dict[str, Any]:
    """A comparison as the summary holds it."""

    def flat(one: Interval) -> dict[str, float]:
        return {"difference": one.value, "low": one.low, "high": one.high}

    by_dataset = {name: flat(one) for name, one in comparison.by_dataset.items()}
    return {
        "baseline": baseline,
        **flat(comparison.difference),
        "p_value": comparison.p_value,
        "by_dataset": by_dataset,
    }


def _difference(kind: Metric, a: Array, b: Array, counts: Array) -> Array:
    return finish(kind, counts @ a) - finish(kind, counts @ b)


def _swapped(kind: Metric, a: Array, b: Array, *, resamples: int, seed: int, stream: str) -> Array:
    """Differences after each row's two answers changed sides with a fair coin, ``[resamples]``."""
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode()), 1])
    change, differences = b - a, []
    for start in range(0, resamples, CHUNK):
        coins = rng.integers(2, size=(min(CHUNK, resamples - start), len(a))).astype(np.float64)
        moved = coins @ change
        differences.append(finish(kind, a.sum(0) + moved) - finish(kind, b.sum(0) - moved))
    return np.concatenate(differences)


def _matched(ours: Mapping[str, Scored], baseline: Mapping[str, Scored]) -> dict[str, tuple[Scored, Scored]]:
    """Both sides of each dataset in the same row order."""
    problems = [f"{name}: only one side has it" for name in sorted(ours.keys() ^ baseline.keys())]
    pairs = {}
    for name in ours.keys() & baseline.keys():
        mine, theirs = _by_row(ours[name]), _by_row(baseline[name])
        if len(np.unique(mine.row)) < len(mine.row) or len(np.unique(theirs.row)) < len(theirs.row):
            problems.append(f"{name}: a row id occurs more than once")
        elif not np.array_equal(mine.row, theirs.row):
            shared = len(np.intersect1d(mine.row, theirs.row))
            problems.append(f"{name}: {len(mine.row)} and {len(theirs.row)} rows, only {shared} of them the same")
        elif not np.array_equal(mine.label, theirs.label):
            problems.append(f"{name}: {int((mine.label != theirs.label).sum())} rows with different labels")
        else:
            pairs[name] = mine, theirs
    if problems:
        raise UserError(
            "the two methods were not measured on the same rows",
            remedy="evaluate both on the same version of the datasets",
            problems=tuple(sorted(problems)),
        )
    return {name: pairs[name] for name in ours}


def _by_row(scored: Scored) -> Scored:
    order = np.argsort(scored.row, kind="stable")
    return replace(
        scored,
        row=scored.row[order],
        label=scored.label[order],
        predicted=scored.predicted[order],
        loss=scored.loss[order],
        confidence=scored.confidence[order],
    )
