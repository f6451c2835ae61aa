"""How figures look, and how they come to be SVG and PNG: the report inlines the one, MLflow shows the other.

Text stays text in the SVG, and colours come from one palette, so that a page can replace them by its own variables:
that is how figures follow dark mode. Hues are those of Okabe and Ito (2008), told apart with every common colour
blindness.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
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


def render(figure: Figure) -> Image:
    """A figure in both formats."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=160, facecolor="#ffffff")
    return Image(svg.getvalue(), png.getvalue())
