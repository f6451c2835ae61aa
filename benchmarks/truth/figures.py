"""Pictures of the studies for the documentation."""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from benchmarks.truth.markdown import Found
from benchmarks.truth.names import ENSEMBLE, RAW
from components.drawing import PALETTE, canvas, draw_dots, drawn, label_rows
from components.validation.figures import agreement


def pictures(found: dict[str, Found]) -> dict[str, bytes]:
    """A PNG by study, of those that have run and have one."""
    return {name: drawn(name, partial(draw, found[name])).png for name, draw in FIGURES.items() if name in found}


def controls(found: Found) -> Figure:
    """How far every method's metric is from one multi-task adapter's, with the 95 % interval over seeds."""
    rows = {name: row for name, row in found["methods"].items() if f"against {RAW}" in row}
    apart = [row[f"against {RAW}"]["metric"] for row in rows.values()]
    gains, noise = (np.array([100 * one[key] for one in apart]) for key in ("value", "noise"))
    figure, axes = canvas(7.2, 0.9 + 0.27 * len(rows))
    draw_dots(axes, gains, noise, [PALETTE["ensemble" if name == ENSEMBLE else "base"] for name in rows])
    axes.axvline(0, color=PALETTE["muted"], linewidth=0.8)
    label_rows(axes, [f"{name} ({row['relative_flops']:.2f})" for name, row in rows.items()])
    axes.set_xlabel(f"points beyond {RAW} (FLOPs in brackets)")
    return figure


FIGURES: dict[str, Callable[[Found], Figure]] = {"study": agreement, "controls": controls}
CAPTIONS = {
    "study": "Estimated against true losses of every subset, each dataset's mean taken off",
    "controls": "Metric of the ensemble and its controls, against one multi-task adapter",
}
