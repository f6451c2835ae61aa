"""The validation's figures: estimated against true losses, the first-order error, the partitions."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from components.drawing import PALETTE, Image, canvas, draw_dots, drawn, label_rows
from components.validation.labels import PARTITIONS

Facts = Mapping[str, Any]


def draw(facts: Facts) -> dict[str, Image]:
    """``agreement``, ``first_order`` and ``partitions``."""
    drawings: dict[str, Callable[[Facts], Figure]] = {
        "agreement": agreement,
        "first_order": first_order,
        "partitions": partitions,
    }
    return {name: drawn(name, partial(one, facts)) for name, one in drawings.items()}


def agreement(facts: Facts) -> Figure:
    """Centred true losses, with the seeds' standard error, against centred estimates; random subsets stand out."""
    figure, axes = canvas(5.6, 4.4)
    true, error, estimated = _centred(facts)
    random = np.array([cell["random"] for cell in facts["cells"]])
    for shown, colour, label in ((~random, "base", "other subsets"), (random, "ensemble", "random subsets")):
        axes.errorbar(
            estimated[shown], true[shown], error[shown], fmt="o", color=PALETTE[colour], markersize=3.5, elinewidth=0.6,
            markeredgewidth=0, alpha=0.75, label=label,
        )  # fmt: skip
    low, high = (side([*true, *estimated]) for side in (min, max))
    axes.plot([low, high], [low, high], color=PALETTE["muted"], linewidth=0.8)
    axes.set_xlabel("estimated loss / label entropy, minus the dataset's mean")
    axes.set_ylabel("true loss, likewise")
    axes.grid()
    axes.tick_params(length=0)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _centred(facts: Facts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True losses, their standard errors over seeds, and estimates; each dataset's mean is 0."""
    names = np.array([cell["dataset"] for cell in facts["cells"]])
    runs = np.array([cell["true"] for cell in facts["cells"]])
    pair = [runs.mean(axis=1), np.array([cell["surrogate"] for cell in facts["cells"]])]
    for name in set(names):
        for values in pair:
            values[names == name] -= values[names == name].mean()
    return pair[0], runs.std(axis=1, ddof=1) / runs.shape[1] ** 0.5, pair[1]


def first_order(facts: Facts) -> Figure:
    """Relative error of the margin against distance, mean and spread over subsets, on logarithmic axes."""
    figure, axes = canvas(5.0, 3.2)
    points = facts["linearity"]["mean"]
    distance = np.array([100 * point["distance"] for point in points])
    for kind, colour, marker in (("unprojected", "ensemble", "o"), ("projected", "multitask", "s")):
        for key, line in (("relative", "-"), ("of_change", ":")):
            error = np.array([100 * point[kind][key] for point in points])
            spread = np.array([100 * point[kind][f"{key}_spread"] for point in points])
            least = np.maximum(error - spread, error / 10)  # a logarithm has no zero
            axes.fill_between(distance, least, error + spread, color=PALETTE[colour], alpha=0.12, linewidth=0)
            label = f"{kind}, of the {'margin' if key == 'relative' else 'change'}"
            axes.plot(distance, error, f"{marker}{line}", color=PALETTE[colour], markersize=3.5, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(distance, [f"{one:g}" for one in distance])
    axes.yaxis.set_major_formatter("{x:g}")  # powers of ten would be written in TeX, which our figures do without
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("relative distance from where gradients are taken (%)")
    axes.set_ylabel("error (%)")
    axes.grid()
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def partitions(facts: Facts) -> Figure:
    """Every partition's true test loss with the seeds' standard deviation."""
    results = facts["partitions"]
    figure, axes = canvas(5.6, 0.9 + 0.3 * len(results))
    colours = [PALETTE["ensemble" if one["name"] == "chosen" else "base"] for one in results]
    losses, spreads = (np.array([one[key] for one in results]) for key in ("test", "spread"))
    draw_dots(axes, losses, spreads, colours)
    label_rows(axes, [f"{PARTITIONS.get(one['name'], one['name'])} ({one['adapters']})" for one in results])
    axes.set_xlabel("test loss / label entropy, mean over datasets (adapters in brackets)")
    return figure
