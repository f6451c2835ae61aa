"""The run's report: one HTML file that needs nothing else, from the summary dictionary.

The template (``report.html.j2``) holds the words and the shape; this module prepares what needs computing, so that the
template only lays out. Whatever the summary lacks, because the run only planned or trained no baseline, has no section.
Every text is escaped; the page forbids itself any network access.
"""

import json
import math
from collections.abc import Iterable
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from components.drawing import Image
from components.ensemble.figures import METHOD_LABELS, METRIC_LABELS, draw_figures, grouped_names
from components.page import environment, inline_svg, points, style

Summary = dict[str, Any]

OPTIONAL: dict[str, Any] = {
    "affinity": None,
    "against_champion": None,
    "artifacts": {},
    "average": {},
    "boosting": {},
    "comparisons": [],
    "cost": None,
    "created": "",
    "curves": {},
    "datasets": [],
    "drift": None,
    "groups": [],
    "methods": [],
    "mlflow": None,
    "partition": None,
    "promotion": None,
    "results": {},
    "run_id": "",
    "seed": None,
    "settings": {},
    "versions": {},
    "weights": None,
}


def render_report(summary: Summary, figures: dict[str, Image] | None = None) -> str:
    """The report as one self-contained HTML page.

    Args:
        summary: the run's summary; only ``name`` must be there.
        figures: from ``draw_figures``, where the caller has drawn them already.
    """
    images = draw_figures(summary) if figures is None else figures
    known = {**OPTIONAL, **{key: part for key, part in summary.items() if part is not None}}
    template = environment().from_string(files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        **known,
        style=style(),
        figures={name: inline_svg(image.svg, name) for name, image in images.items()},
        headline=_headline(known),
        table=_table(known),
        best_average=_best({method: one["metric"] for method, one in known["average"].items()}),
        cost_groups=_cost_groups(known["cost"]["steps"]) if known["cost"] else [],
        order=grouped_names([one["name"] for one in known["datasets"]], known["groups"]),
        by_name={one["name"]: one for one in known["datasets"]},
        method_labels=METHOD_LABELS,
        metric_labels=METRIC_LABELS,
        tracking_uri=_without_password((known["mlflow"] or {}).get("tracking_uri")),
        settings_text=json.dumps(known["settings"], indent=2, ensure_ascii=False, default=str),
    )


def _headline(summary: Summary) -> dict[str, Any]:
    """What the top of the page says: a sentence, its tone, and the comparison it stands on (or None)."""
    baselines = [one["baseline"] for one in summary["comparisons"]]
    if not baselines:
        groups, datasets = len(summary["groups"]), sum(map(len, summary["groups"]))
        text = f"{_plural(datasets, 'dataset')} in {_plural(groups, 'group')}" if groups else "No results yet"
        return {"text": text, "tone": "neutral", "comparison": None}
    chosen = summary["comparisons"][baselines.index("multitask") if "multitask" in baselines else 0]
    against = METHOD_LABELS.get(chosen["baseline"], chosen["baseline"])
    if chosen["low"] > 0:
        text, tone = f"The ensemble beats {against} by {points(chosen['difference'], sign=False)} points", "good"
    elif chosen["high"] < 0:
        text, tone = f"The ensemble loses to {against} by {points(-chosen['difference'], sign=False)} points", "bad"
    else:
        text, tone = f"No clear difference between the ensemble and {against}", "neutral"
    return {"text": text, "tone": tone, "comparison": chosen}


def _table(summary: Summary) -> list[dict[str, Any]]:
    """Rows of the results table in group order: a dataset's own metric by method, and which one is the best."""
    metric = {one["name"]: one["metric"] for one in summary["datasets"]}
    group_of = {name: k for k, group in enumerate(summary["groups"]) for name in group}
    rows = []
    for name in grouped_names(list(summary["results"]), summary["groups"]):
        measured = summary["results"][name]
        cells = {method: one[metric[name]] for method, one in measured.items()}
        rows.append(
            {
                "name": name,
                "group": group_of.get(name),
                "metric": metric[name],
                "cells": cells,
                "best": _best(cells),
                "all": measured,
            }
        )
    return rows


def _best(cells: dict[str, Any]) -> set[str]:
    top = max((one["value"] for one in cells.values()), default=math.nan)
    return {method for method, one in cells.items() if one["value"] == top}


def _cost_groups(steps: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps in order of first appearance, each with its parts and their totals; memory is the largest part's."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        parts.setdefault(step["step"], []).append(step)
    return [
        {
            "step": name,
            "parts": some if len(some) > 1 else [],
            "seconds": sum(one.get("seconds") or 0 for one in some),
            "peak_memory_bytes": max((one.get("peak_memory_bytes") or 0 for one in some), default=0),
            "flops": sum(one.get("flops") or 0 for one in some),
            "reused": sum(bool(one.get("reused")) for one in some),
            "count": len(some),
        }
        for name, some in parts.items()
    ]


def _without_password(uri: str | None) -> str | None:
    """The tracking server's address; user and password, which people do put there, are nobody else's business."""
    if uri is None:
        return None
    split = urlsplit(uri)
    return urlunsplit(split._replace(netloc=split.netloc.rpartition("@")[2]))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
