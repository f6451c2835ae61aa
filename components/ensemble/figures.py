"""The report's figures, drawn from the summary dictionary. Methods differ by marker as well as by colour."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from components.drawing import PALETTE, Image, canvas, canvas_of, drawn, label_rows

Summary = dict[str, Any]

METHOD_LABELS = {
    "base": "base model",
    "start": "start (theta*)",
    "multitask": "one multi-task adapter",
    "per_dataset": "one adapter each",
    "group": "own group's adapter",
    "ensemble": "ensemble",
}
MARKERS = {"base": "x", "start": "v", "multitask": "s", "per_dataset": "^", "group": "D", "ensemble": "o"}
METRIC_LABELS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}

DIVERGING = LinearSegmentedColormap.from_list("affinity", ["#c4610a", "#f0b98a", "#f7f7f5", "#8fbfe0", "#00558c"])
SEQUENTIAL = LinearSegmentedColormap.from_list("weights", ["#f7f9fb", "#bcd9ec", "#5fa5d2", "#00558c"])
BOX = "#10151c"  # round a group; not in the palette: the cells it lies on do not change with the page either
MOST_LABELS = 60  # datasets beyond which a heatmap shows no names
MOST_NUMBERS = 20  # datasets up to which its cells hold numbers


def draw_figures(summary: Summary) -> dict[str, Image]:
    """Every figure the summary has the data for: ``affinity``, ``results``, ``weights``, ``groups``, ``curves``."""
    drawings: dict[str, tuple[Any, Callable[[Summary], Figure]]] = {
        "affinity": (summary.get("affinity"), affinity_heatmap),
        "groups": ((summary.get("partition") or {}).get("curve"), group_curve),
        "results": (summary.get("results"), result_dots),
        "weights": (summary.get("weights"), weight_heatmap),
        "curves": (summary.get("curves"), training_curves),
    }
    images = {}
    for name, (data, draw) in drawings.items():
        if data:
            images[name] = drawn(name, partial(draw, summary))
    return images


def affinity_heatmap(summary: Summary) -> Figure:
    """T, rows and columns ordered by group, each group in a box; blue: i does better than usual beside j."""
    names = summary["affinity"]["datasets"]
    order, sizes = _by_group(names, summary.get("groups") or [])
    matrix = np.array(summary["affinity"]["matrix"], dtype=float)[np.ix_(order, order)]
    largest = np.nanmax(np.abs(matrix), initial=1e-9)
    size = 2.2 + 0.36 * min(len(names), 20)
    figure, axes = canvas(size + 0.9, size)
    _heatmap(axes, matrix, DIVERGING, TwoSlopeNorm(0, -largest, largest), "{:.1f}")
    _name_ticks(axes, [names[i] for i in order], [names[i] for i in order])
    axes.set_xlabel("together with")
    start = 0
    for group_size in sizes:
        axes.add_patch(Rectangle((start, start), group_size, group_size, fill=False, edgecolor=BOX, linewidth=1.8))
        start += group_size
    _colour_bar(figure, axes, "affinity (standard deviations)")
    return figure


def weight_heatmap(summary: Summary) -> Figure:
    """W, datasets ordered by group, each with its temperature; the cell of a dataset's own group is framed."""
    weights, groups = summary["weights"], summary.get("groups") or []
    names = weights["datasets"]
    order, _ = _by_group(names, groups)
    matrix = np.array(weights["matrix"], dtype=float)[order]
    figure, axes = canvas(2.9 + 0.62 * matrix.shape[1], 1.1 + 0.26 * min(len(names), MOST_LABELS))
    _heatmap(axes, matrix, SEQUENTIAL, Normalize(0, 1), "{:.2f}")
    rows = [f"{names[i]} (T {weights['temperatures'][i]:.3g})" for i in order]
    _name_ticks(axes, rows, weights["members"])
    for row, i in enumerate(order):
        for k, group in enumerate(groups):
            if names[i] in group:
                axes.add_patch(Rectangle((k, row), 1, 1, fill=False, edgecolor=BOX, linewidth=1.5, zorder=3))
    _colour_bar(figure, axes, "weight")
    return figure


def result_dots(summary: Summary) -> Figure:
    """Each dataset's own metric by method with its interval, one band a dataset, the average on top."""
    methods, kinds = summary["methods"], {d["name"]: d["metric"] for d in summary["datasets"]}
    rows: list[tuple[str, dict[str, Any]]] = []
    if summary.get("average"):
        rows.append(("average", {method: one["metric"] for method, one in summary["average"].items()}))
    for name in grouped_names(list(summary["results"]), summary.get("groups") or []):
        one = {method: metrics[kinds[name]] for method, metrics in summary["results"][name].items()}
        rows.append((f"{name} (F1)" if kinds[name] == "macro_f1" else name, one))
    figure, axes = canvas(10.4, 1.0 + (0.088 * len(methods) + 0.06) * len(rows))
    for k in range(0, len(rows), 2):
        axes.axhspan(k - 0.5, k + 0.5, color=PALETTE["band"], linewidth=0, zorder=0)
    for m, method in enumerate(methods):
        shift = (m - (len(methods) - 1) / 2) * 0.78 / max(len(methods), 2)
        _dots(axes, method, [(k + shift, one[method]) for k, (_, one) in enumerate(rows) if method in one])
    if summary.get("average"):
        axes.axhline(0.5, color=PALETTE["muted"], linewidth=0.8)
    label_rows(axes, [label for label, _ in rows])
    axes.set_xlabel("test accuracy, or macro-F1 where marked F1 (%), with 95 % intervals")
    figure.legend(loc="outside upper center", ncols=6, handletextpad=0.2, columnspacing=1.3)
    return figure


def _dots(axes: Axes, method: str, points: list[tuple[float, dict[str, float]]]) -> None:
    """One method's values (shares, shown as percentages) and intervals, at the given heights; ours stands out."""
    heights, first, colour = [y for y, _ in points], method == "ensemble", PALETTE[method]
    low, middle, high = ([100 * one[key] for _, one in points] for key in ("low", "value", "high"))
    axes.hlines(heights, low, high, color=colour, linewidth=1.8 if first else 1.0, alpha=1 if first else 0.55)
    axes.plot(
        middle,
        heights,
        MARKERS[method],
        color=colour,
        markersize=5 if first else 3.8,
        markeredgewidth=1.2 if method == "base" else 0,
        label=METHOD_LABELS[method],
    )


def training_curves(summary: Summary) -> Figure:
    """Training and validation loss by epoch, one small panel an adapter, a common scale."""
    curves = summary["curves"]
    columns = min(4, len(curves))
    lines = math.ceil(len(curves) / columns)
    figure, panels = canvas_of(2.45 * columns + 0.5, 1.55 * lines + 0.45, lines, columns)
    for k, (axes, (name, points)) in enumerate(zip(panels, curves.items(), strict=False)):
        epochs = [point["epoch"] for point in points]
        for key, colour, label in (("train_loss", "base", "training"), ("validation_loss", "ensemble", "validation")):
            losses = [math.nan if point.get(key) is None else point[key] for point in points]
            axes.plot(epochs, losses, "o-", color=PALETTE[colour], label=label, markersize=3, linewidth=1.5)
        axes.set_title(name)
        axes.grid(axis="y")
        axes.tick_params(length=0, labelbottom=k + columns >= len(curves))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    figure.supxlabel("epoch", fontsize=9, color=PALETTE["muted"])
    figure.supylabel("loss (nats)", fontsize=9, color=PALETTE["muted"])
    return figure


def group_curve(summary: Summary) -> Figure:
    """Expected loss of the best partition into m groups, with standard errors; the chosen m is filled."""
    curve, chosen = summary["partition"]["curve"], len(summary.get("groups") or [])
    figure, axes = canvas(4.6, 2.7)
    m, loss, error = (np.array([point[key] for point in curve], float) for key in ("m", "loss", "standard_error"))
    colour = PALETTE["ensemble"]
    axes.errorbar(m, loss, error, color=colour, linewidth=1.4, elinewidth=1, capsize=2.5, marker="o", markersize=5,
                  markerfacecolor=PALETTE["paper"])  # fmt: skip
    picked = m == chosen
    axes.plot(m[picked], loss[picked], "o", color=colour, markersize=8, zorder=4)
    for x, y in zip(m[picked], (loss + error)[picked], strict=True):
        axes.annotate("chosen", (x, y), (0, 5), textcoords="offset points", ha="center", color=PALETTE["ink"])
    axes.set_xlabel("number of groups m")
    axes.set_ylabel("expected loss / label entropy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.tick_params(length=0)
    return figure


def grouped_names(names: list[str], groups: list[list[str]]) -> list[str]:
    """``names`` in the order of the groups, those in no group last."""
    place = {name: k for k, name in enumerate(name for group in groups for name in group)}
    return sorted(names, key=lambda name: place.get(name, len(place)))


def _by_group(names: list[str], groups: list[list[str]]) -> tuple[list[int], list[int]]:
    """Indices of ``names`` in group order, and how many of each group are among them."""
    order = [names.index(name) for name in grouped_names(names, groups)]
    return order, [sum(name in names for name in group) for group in groups]


def _heatmap(axes: Axes, matrix: np.ndarray, colours: LinearSegmentedColormap, norm: Normalize, form: str) -> None:
    """Cells with thin gaps and, while there are few, their numbers; row 0 on top."""
    few = max(matrix.shape) <= MOST_NUMBERS
    axes.pcolormesh(
        matrix,
        cmap=colours,
        norm=norm,
        edgecolor="#ffffff" if few else "none",
        linewidth=0.6 if few else 0,
        rasterized=not few,
    )
    axes.set_ylim(matrix.shape[0], 0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (i, j), number in np.ndenumerate(matrix) if few else ():
        if np.isfinite(number) and form.format(abs(number)) != form.format(0):
            red, green, blue, _ = colours(norm(number))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            text = form.format(number).replace("-", "\N{MINUS SIGN}")
            axes.text(
                j + 0.5, i + 0.53, text, ha="center", va="center", fontsize=7, color="#ffffff" if dark else "#26303b"
            )


def _name_ticks(axes: Axes, rows: list[str], columns: list[str]) -> None:
    shown = [(axes.yaxis, rows), (axes.xaxis, columns)]
    for axis, names in shown:
        some = names if len(names) <= MOST_LABELS else []
        axis.set_ticks(np.arange(len(some)) + 0.5, some)
    axes.tick_params(axis="x", rotation=45 if max(map(len, columns)) > 4 else 0)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
        label.set_rotation_mode("anchor")


def _colour_bar(figure: Figure, axes: Axes, label: str) -> None:
    bar = figure.colorbar(axes.collections[0], ax=axes, shrink=0.6, aspect=24, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
