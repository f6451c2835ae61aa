"""How the parts grow: twice the datasets, twice the samples, twice the adapter rank. Writes ``docs/growth.svg``."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measure import Row, alternate
from benchmarks.setting import adapted, base_model, mixed, tokenized
from components.estimator import GroupEstimator
from components.gradients.per_sample import projected_gradients
from components.gradients.projection import Projection
from components.tables import Features

FIGURE = Path(__file__).parents[2] / "docs" / "growth.svg"
SAMPLES, RANKS, DATASETS = (32, 64, 128), (4, 8, 16, 32, 64), (10, 20, 40)
SUBSETS, SUBSET_SHARE, DIM, ROWS = 100, 0.3, 200, 100
# A doubling may cost twice as much and what measuring adds; the rank touches a small part of the work only.
TWICE, RANK = 2.3, 1.4


def rows() -> list[Row]:
    """The worst step from a size to its double, for each of the three."""
    taken = {"samples": _samples(), "rank": _ranks(), "datasets": _datasets()}
    sizes = {"samples": SAMPLES, "rank": RANKS, "datasets": DATASETS}
    notes = {
        "samples": "extraction",
        "rank": "extraction of 64 rows",
        "datasets": f"estimate of {SUBSETS} subsets of {SUBSET_SHARE} n, {ROWS} rows a dataset, {DIM} dimensions",
    }
    _draw(sizes, taken, notes)
    found = []
    for name, seconds in taken.items():
        steps = [(second, first) for first, second in itertools.pairwise(seconds)]
        second, first = max(steps, key=lambda step: step[0] / step[1])
        bound = RANK if name == "rank" else TWICE
        note = f"{notes[name]}; {name} {', '.join(map(str, sizes[name]))}; the worst step"
        found.append(Row(f"growth, twice the {name}", second, first, second / first, bound, note=note))
    return found


def _samples() -> Sequence[float]:
    base = base_model()
    model, parts = adapted(base), tokenized(base)
    projection = Projection(400, 0, "count_sketch", torch.device("cpu"))
    # The same rows over and over, so that sizes differ in nothing but their number.
    rows = mixed(parts, SAMPLES[0])
    sides = []
    for count in SAMPLES:
        repeated = rows.take(np.tile(np.arange(SAMPLES[0]), count // SAMPLES[0]))
        sides.append(lambda part=repeated: projected_gradients(model, base, part, projection, 1024))
    return _measured(sides)


def _ranks() -> Sequence[float]:
    sides, rows = [], mixed(tokenized(base_model()), 64)
    for rank in RANKS:
        base = base_model()  # of its own: PEFT puts its layers into it
        model = adapted(base, rank)
        projection = Projection(400, 0, "count_sketch", torch.device("cpu"))
        sides.append(lambda m=model, b=base, part=rows, p=projection: projected_gradients(m, b, part, p, 1024))
    return _measured(sides)


def _datasets() -> Sequence[float]:
    sides = []
    for count in DATASETS:
        random = np.random.default_rng(0)
        train, validation = ([_features(random) for _ in range(count)] for _ in range(2))
        members = np.zeros((SUBSETS, count), bool)
        for subset in members:
            subset[random.choice(count, round(SUBSET_SHARE * count), replace=False)] = True
        estimator = GroupEstimator(
            train, validation, [10, 3, 1], np.full(count, 100 / (SUBSET_SHARE * count * DIM)), seed=0
        )
        sides.append(lambda e=estimator, m=members: e.solve(m))
    return _measured(sides)


def _features(random: np.random.Generator) -> Features:
    features = random.standard_normal((ROWS, DIM)).astype(np.float32)
    margin = random.standard_normal(ROWS).astype(np.float32)
    return Features(random.integers(0, 2**60, ROWS), features, margin)


def _measured(sides: Sequence[Callable[[], object]]) -> Sequence[float]:
    for side in sides:
        side()
    return alternate(*sides)


def _draw(sizes: dict[str, Sequence[int]], taken: dict[str, Sequence[float]], notes: dict[str, str]) -> None:
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(taken)), taken, strict=True):
        size, seconds = np.array(sizes[name]), np.array(taken[name])
        axes.loglog(size, seconds, marker="o", label="measured")
        axes.loglog(size, seconds[0] * size / size[0], ":", color="grey", label="in proportion")
        axes.set(xlabel=name, ylabel="seconds", title=notes[name].partition(",")[0])
        axes.set_xticks(size, [str(value) for value in size], minor=False)
        axes.xaxis.set_minor_formatter("")
        axes.legend(frameon=False)
    with mpl.rc_context({"svg.hashsalt": "loraloom"}):
        figure.savefig(FIGURE, metadata={"Date": None})
