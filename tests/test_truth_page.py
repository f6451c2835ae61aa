"""The page of the studies: every table there is comes from its JSON, and what has not run is not there."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.marked import END
from benchmarks.truth import page
from benchmarks.truth.estimate_tables import by_dataset
from benchmarks.truth.figures import controls as draw_controls
from benchmarks.truth.goals import goals
from benchmarks.truth.markdown import grid, heading, interval, percent, spread
from benchmarks.truth.names import FROM_POINT, FULL

ABOUT: dict[str, Any] = {
    "date": "2026-11-27T22:00+00:00",
    "machine": {"cores": 2},
    "wall_clock_seconds": 600,
    "versions": {"torch": "2"},
    "seed": 7,
    "model": "tiny",
    "quantization": "none",
    "dtype": "float32",
    "datasets": ["sst2", "wic"],
    "rows": {"train": 30, "validation": 20, "test": 10},
    "settings": {
        "training": {"epochs": 3, "learning_rate": 0.001, "batch_size": 16},
        "warm_start": {"epochs": 1, "lookahead": 1},
        "selection": {"seeds": 3},
    },
}
APART = {"value": 0.0123, "noise": 0.004, "clear": True}


def method(metric: list[float], **more: Any) -> dict[str, Any]:
    row = {"metric": metric, "accuracy": metric, "loss": [0.5, 0.7], "calibrated": [0.4, 0.6]}
    return {**row, "flops": 10.0, "by_dataset": [0.5], "relative_flops": 1.25, **more}


def controls() -> dict[str, Any]:
    others = ("multi-task, raw start", "multi-task", "an adapter each", "random groups and multi-task, weighted")
    apart = {f"against {other}": {"metric": APART, "calibrated": APART} for other in others}
    rows = {
        "multi-task, raw start": method([0.6, 0.6]),
        "chosen groups, weighted": method([0.61, 0.61]),
        "multi-task and chosen groups, weighted": method([0.61, 0.63], **apart)
        | {"flops": 18.0, "relative_flops": 2.25},
    }
    return {**ABOUT, "seeds": 2, "groups": [["sst2"], ["wic"]], "plan_flops": 2.4, "methods": rows}


def recipes() -> dict[str, Any]:
    apart = {"against raw": {"metric": APART, "calibrated": APART}}
    rows = {"raw": method([0.6, 0.6]), "1 + 3: own": method([0.61, 0.63], **apart)}
    return {"recipes": {"1 + 3": ABOUT, "2 + 2": ABOUT}, "seeds": 2, "against": ["raw"], "methods": rows}


PLAN = [
    {"name": f"{name}, 50 subsets, FLOPs", "value": value, "baseline": 2000, "ratio": 2000 / value, "note": note}
    for name, value, note in (("estimating", 8, "16 datasets; warm 5e12"), ("plan", 10, "16 datasets; warm 5e12"))
]


def write(tmp_path: Path, **tables: Any) -> str:
    """What stands on both pages of the first model then, the one on claims first; `gpt2` are the second model's."""
    docs = [tmp_path / name for name in ("truth.md", "results.md", "truth-gpt2.md")]
    for path in docs:
        path.write_text(f"before\n{page.BEGIN}\nold\n{END}\nafter\n")
    second = tables.pop("gpt2", {})
    for folder, kept in ((tmp_path / "results", tables), (tmp_path / "results" / "gpt2", second)):
        folder.mkdir()
        for name, found in kept.items():
            (folder / f"{name}.json").write_text(json.dumps(found))
    (tmp_path / "engine.json").write_text(json.dumps({"rows": {"plan_cost": PLAN}}))
    page.write(tmp_path / "results", tmp_path / "engine.json", tmp_path)
    return "".join(path.read_text() for path in docs[:2])


def test_the_page_has_the_tables_that_were_measured_and_no_others(tmp_path: Path) -> None:
    text = write(tmp_path, controls=controls())
    assert text.startswith(f"before\n{page.BEGIN}\n## Goals\n") and text.endswith("after\n")
    assert "\n\n## Where a gain comes from\n" in text
    assert "old" not in text and "Boosting" not in text
    assert "2 CPU cores, 10 minutes (the last calls, which found what others had made); torch 2, seed 7." in text
    ours = "| multi-task and chosen groups, weighted | 62.00 ± 1.41 | 62.00 ± 1.41 "
    cells = ours + "| 0.6000 ± 0.1414 | 0.5000 ± 0.1414 | 2.25 |"
    row = cells + 4 * " +1.23 ± 0.40 |"
    assert row in text
    assert "search took 2.4 more, which are not in them. Groups: sst2; wic." in text
    assert "by its calibrated loss: +0.0123 ± 0.0040 against multi-task, raw start, +0.0123 ± 0.0040 against" in text
    assert "| test metric against an adapter each | not reported | above | +1.23 ± 0.40 points, 2 seeds | yes |" in text
    told = (
        "+155 % at 30 rows a dataset, +55 % without the multi-task member, 30 % for solver and search; warm start, "
        "look-ahead, extraction, solver and search alone +7.5 %"
    )
    assert f"| FLOPs over one multi-task adapter, raw start | 9 % | <= 5 % | {told} (16 datasets) | no |" in text


def test_the_pages_tell_what_the_kept_numbers_say(tmp_path: Path) -> None:
    for name in page.PAGES:
        shutil.copy(page.DOCS / name, tmp_path / name)
    page.write(page.RESULTS, page.ENGINE, tmp_path)
    for name in page.PAGES:
        assert (tmp_path / name).read_text() == (page.DOCS / name).read_text()
    drawn = {path.name for path in tmp_path.glob("*.png")}  # their bytes are the drawing library's, and not compared
    assert drawn == {path.name for path in page.DOCS.glob("truth*.png")}


def test_a_table_of_several_calls_tells_of_all_of_them() -> None:
    later = {**ABOUT, "date": "2026-11-28T01:00+00:00", "wall_clock_seconds": 120, "quantization": "nf4"}
    told = heading(ABOUT, later)
    assert told.startswith("**2026-11-28**, 2 CPU cores, 12 minutes (the last calls")
    assert "tiny, none/float32 or nf4/float32 base" in told


def test_pictures_stand_below_their_tables(tmp_path: Path) -> None:
    text = write(tmp_path, controls=controls())
    assert (
        "against an adapter each, +0.0123 ± 0.0040 against random groups and multi-task, weighted.\n\n![Metric of"
        in text
    )
    assert "](truth-controls.png)\n" in text and "truth-study.png" not in text
    assert (tmp_path / "truth-controls.png").read_bytes().startswith(b"\x89PNG")


def test_the_second_model_has_a_page_of_its_own_without_the_firsts_counts(tmp_path: Path) -> None:
    first = write(tmp_path, gpt2={"controls": controls(), "recipes": recipes()})
    second = (tmp_path / "truth-gpt2.md").read_text()
    assert "##" not in first.replace("## Goals", "") and not (tmp_path / "truth-controls.png").exists()
    told = "+155 % at 30 rows a dataset, +55 % without the multi-task member, 30 % for solver and search"
    assert f"| FLOPs over one multi-task adapter, raw start | 9 % | <= 5 % | {told} | no |" in second
    assert "](truth-gpt2-controls.png)\n" in second and (tmp_path / "truth-gpt2-controls.png").is_file()
    assert second.index("## Goals") < second.index("## Where a gain comes from") < second.index("## Which recipe")


def test_the_picture_shows_differences_with_their_intervals() -> None:
    (axes,) = draw_controls(controls()).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["multi-task and chosen groups, weighted (2.25)"]
    line, points = axes.collections
    assert line.get_segments()[0][:, 0].tolist() == pytest.approx([0.83, 1.63])  # 1.23 ± 0.4 points
    assert points.get_offsets()[:, 0].tolist() == pytest.approx([1.23])


def test_goals_lack_what_has_not_been_compared_yet(tmp_path: Path) -> None:
    first = {**ABOUT, "seeds": 1, "groups": [], "plan_flops": 2.4, "methods": {"multi-task, raw start": method([0.6])}}
    text = write(tmp_path, controls=first)
    assert "## Where a gain comes from" in text and "test metric against" not in text


def test_what_decides_a_default_stands_on_the_page_of_results(tmp_path: Path) -> None:
    write(tmp_path, controls=controls(), recipes=recipes())
    claims, choices = ((tmp_path / name).read_text() for name in ("truth.md", "results.md"))
    assert "## Where a gain comes from" in claims and "## Which recipe" not in claims
    assert "## Which recipe" in choices and "## Goals" not in choices


def test_first_order_errors_stand_by_base_and_distance(tmp_path: Path) -> None:
    def at(distance: float, relative: float) -> dict[str, Any]:
        error = {"relative": relative, "squared": relative**2, "of_change": 0.5}
        kinds = {kind: error for kind in ("unprojected", "projected")}
        return {"distance": distance, **kinds}

    subsets = [
        {"datasets": ["wic"], "errors": [at(0.002, 0.01), at(0.01, 0.1)], "solution_distance": 0.02},
        {"datasets": ["sst2", "wic"], "errors": [at(0.002, 0.03), at(0.01, 0.1)], "solution_distance": 0.04},
    ]
    text = write(tmp_path, first_order={"nf4": {**ABOUT, "subsets": subsets}})
    assert "| base | 0.2 % | 1 % |" in text
    assert "| nf4 | 2 ± 1.41 / 2 (50) | 10 ± 0 / 10 (50) |" in text
    assert "How far the solutions themselves are: nf4 3 %." in text
    assert "For all datasets together, which every base has, the error at 0.2 % is: nf4 3 %." in text
    told = "0.05 % as published (squared), 2 % root mean square, for all datasets together 3 %"
    assert f"| first-order error at relative distance 0.2 %, nf4 | < 3 % | < 1 % | {told} | yes |" in text


def study(corrected: dict[str, float] | None) -> dict[str, Any]:
    """As much of a validation as the goals look at."""
    known = {"value": 0.05, "low": 0.04, "high": 0.06}
    ours = {"corrected_pearson": corrected, "relative_error": known, "pearson": known, "spearman": known}
    overall = {"reliability": known, "noise_error": known, "predictors": {"surrogate": ours}}
    return {**ABOUT, "overall": overall, "cost": {"ratio_published": 7.2, "ratio_own": 969.4, "subsets": 4095}}


@pytest.mark.parametrize(
    ("corrected", "met"),
    [
        ({"value": 0.85, "low": 0.8, "high": 0.9}, "yes"),
        ({"value": 0.82, "low": 0.7, "high": 0.9}, "yes, not clearly"),
        ({"value": 0.6, "low": 0.2, "high": 0.87}, "no, not clearly"),
        ({"value": 0.6, "low": 0.5, "high": 0.7}, "no"),
        (None, "unknown"),
    ],
)
def test_a_goal_inside_the_interval_is_not_clearly_met_or_missed(corrected: Any, met: str) -> None:
    rows = goals({"study": study(corrected)}, None)
    (row,) = [line for line in rows.splitlines() if line.startswith("| Pearson")]
    assert row.endswith(f"| {met} |")


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (
            {"rows": {"plan_cost": PLAN}},
            "250 x (16 datasets), 200 x with the search for a partition; here, {own} | yes |",
        ),
        (None, "{own} | no |"),
    ],
)
def test_the_cost_of_estimating_is_told_for_large_datasets_where_that_was_counted(engine: Any, told: str) -> None:
    own = "at 30 rows a dataset 7 x, at all 4095 subsets 969 x"
    (row,) = [line for line in goals({"study": study(None)}, engine).splitlines() if line.startswith("| fine-tuning")]
    assert row.endswith(f"| 105 x | > 105 x | {told.format(own=own)}")


def test_datasets_stand_with_their_true_losses() -> None:
    one = {"reliability": None, "pearson": {"value": 0.5, "low": 0.2, "high": 0.7}, "corrected_pearson": None}
    cells = [
        {"random": True, "dataset": "sst2", "true": [0.5, 0.7]},
        {"random": True, "dataset": "sst2", "true": [0.9, 0.9]},
        {"random": False, "dataset": "sst2", "true": [9.0, 9.0]},
        {"random": True, "dataset": "wic", "true": [1.0, 1.0]},
    ]
    found = {"by_dataset": {"sst2": {**one, "relative_error": 0.04, "rank": "by chance"}}, "cells": cells}
    assert by_dataset(found)[2] == "| sst2 | 0.75 | - | 0.50 (0.20 to 0.70) | - | 4 | by chance |"


def test_sizes_of_subsets_stand_in_their_order(tmp_path: Path) -> None:
    def row(value: float) -> dict[str, Any]:
        one = {"value": value, "low": 0.25, "high": 0.75}
        ours = {"pearson": one, "corrected_pearson": None, "relative_error": one}
        told = {"surrogate": ours, "constant": {"relative_error": one}, "reliability": one, "noise_error": None}
        return {**ABOUT, "counts": {"random": 48}, "seeds": 2, **told}

    text = write(tmp_path, sizes={"10": row(0.6), "2": row(0.5)})
    error = "50.00 (25.00 to 75.00)"
    first = f"| 2 | 48 | 2 | 0.50 (0.25 to 0.75) | 0.50 (0.25 to 0.75) | - | {error} | {error} | - |\n"
    assert first + "| 10 | 48 | 2 | 0.60" in text


def test_beginnings_stand_beside_the_products_own_with_what_sets_them_apart(tmp_path: Path) -> None:
    apart = {f"against {other}": {"metric": APART} for other in (FULL, FROM_POINT)}
    rows = {FULL: method([0.6, 0.6]), "from theta*, one epoch": method([0.61, 0.63], **apart)}
    text = write(tmp_path, beginnings={**ABOUT, "seeds": 2, "groups": [["sst2"], ["wic"]], "methods": rows})
    told = "| from theta*, one epoch | 62.00 ± 1.41 | 62.00 ± 1.41 | 0.6000 ± 0.1414 | 0.5000 ± 0.1414 | 1.25 "
    assert "## Where adapters begin\n\n**2026-11-27**" in text and f"{told}| +1.23 ± 0.40 | +1.23 ± 0.40 |" in text


def test_boosting_tells_what_was_kept(tmp_path: Path) -> None:
    one = {"before": {"train error": 0.1, "test loss": 0.5}, "groups": [{"kept": True}, {"kept": False}]}
    quantities = ("train error", "test error", "test loss")
    mean = {f"{how}: {what}": APART for how in ("always", "where kept") for what in quantities}
    by_method = {"linear": {**ABOUT, "seeds": [one, one], "mean": mean}, "trained": {**ABOUT, "seeds": [one]}}
    text = write(tmp_path, boosting=by_method)
    assert "linear: 2 seeds, 2 of 4 boosters kept.\ntrained: 1 seeds, 1 of 2 boosters kept." in text
    assert "| +12.3 % training error, +1.23 ± 0.40 points of test error | off |" in text
    assert "boosting's first step, trained" not in text  # a single seed has no noise to compare with
    assert "| test loss | 0.5000 | +0.0123 ± 0.0040 | +0.0123 ± 0.0040 |" in text


def test_affinities_stand_with_their_spread_where_subsets_were_drawn(tmp_path: Path) -> None:
    numbers = {key: {"mean": 0.0123, "spread": 0.004} for key in ("rounded", "searched")}
    rows = [{"affinity": "means", "subsets": count, "samples": k, **numbers} for count, k in ((113, 5), (4095, 1))]
    text = write(tmp_path, affinities={**ABOUT, "draws": 5, "rows_of_table": rows})
    assert "| means | 113 | 0.0123 ± 0.0040 | 0.0123 ± 0.0040 |\n| means | 4095 | 0.0123 | 0.0123 |" in text


def test_sources_stand_with_what_they_bring(tmp_path: Path) -> None:
    real = {key: {"mean": 0.5, "spread": 0.1} for key in ("validation", "test", "accuracy")}
    one = {**ABOUT, "chosen": ["wic"], "confirmed": dict.fromkeys(("none", "chosen", "all"), real)}
    text = write(tmp_path, sources={"sst2": one})
    assert "| sst2 | wic | 0.5000 ± 0.1000 | 0.5000 ± 0.1000 | 50.0 ± 10.0 |" in text
    assert "over 3 seeds;" in text


def test_numbers_are_told_with_what_surrounds_them() -> None:
    assert interval({"value": 0.5, "low": 0.25, "high": 0.75}, 100) == "50.00 (25.00 to 75.00)"
    assert interval(None) == "-"
    assert percent(0.01234) == "1.23"
    assert spread([1.0]) == 0 and spread([1.0, 3.0]) == pytest.approx(2**0.5)
    assert grid(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | ---: |", "| 1 | 2 |"]
