"""How figures look, and how they come to be SVG and PNG: the report inlines the one, MLflow shows the other.

Text stays text in the SVG, and colours come from one palette, so that a page can replace them by its own variables:
that is how figures follow dark mode. Hues are those of Okabe and Ito (2008), told apart with every common colour
blindness.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PALETTE = {
    "ink": "#1f2733",
    "muted": "#66707d",
    "line": "#d5dae0",
    "band": "#f4f6f8",
    "paper": "#fffffe",
    "base": "#9aa3ad",
    "start": "#56b4e9",
    "multitask": "#e69f00",
    "per_dataset": "#009e73",
    "group": "#cc79a7",
    "ensemble": "#0072b2",
}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": PALETTE["ink"],
    "text.parse_math": False,
    "axes.edgecolor": PALETTE["line"],
    "axes.labelcolor": PALETTE["muted"],
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "grid.color": PALETTE["line"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Image:
    """One figure in both formats."""

    svg: bytes
    png: bytes


def drawn(name: str, draw: Callable[[], Figure]) -> Image:
    """What ``draw`` draws, in our style; ``name`` keeps the ids inside the SVG apart from other figures'."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        return render(draw())


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of ``width`` by ``height`` inches with one panel."""
    figure, panels = canvas_of(width, height, 1, 1)
    return figure, panels[0]


def canvas_of(width: float, height: float, lines: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of ``width`` by ``height`` inches without pyplot, whose global state is no place for a server."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel())


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """One row a label at the heights 0, 1, ..., the first on top, and lines to read values along."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def draw_dots(axes: Axes, values: np.ndarray, noise: np.ndarray, colours: Sequence[str]) -> None:
    """A dot a row, with a line as far to both sides as its noise."""
    heights = np.arange(len(values))
    axes.hlines(heights, values - noise, values + noise, color=colours, linewidth=1.6)
    axes.scatter(values, heights, color=colours, s=26, zorder=3)


def render(figure: Figure) -> Image:
    """A figure in both formats."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=160, facecolor="#ffffff")
    return Image(svg.getvalue(), png.getvalue())
