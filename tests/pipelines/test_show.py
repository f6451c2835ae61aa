"""What a plan and a finished run look like in a terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from components.config import RunConfig
from pipelines.invocation import typed
from pipelines.show import show_plan, show_result
from pipelines.training_plan import TrainingPlan, training_plan


def example_config(**more: Any) -> RunConfig:
    datasets = [{"name": name, "path": "/data"} for name in ("a", "b", "c")]
    return RunConfig.model_validate({"model": {"id": "x"}, "datasets": datasets, **more})


def example_summary() -> dict[str, Any]:
    def metrics(value: float) -> dict[str, Any]:
        return {name: {"value": value, "low": value - 0.02, "high": value + 0.02} for name in ("accuracy", "macro_f1")}

    sizes = {"a": 1000, "b": 300, "c": 77}
    scores = {"a": (0.5, 0.81, 0.834), "b": (0.25, 0.7, 0.69), "c": (0.333, 0.9, 0.912)}
    methods = ["base", "multitask", "ensemble"]
    return {
        "datasets": [
            {"name": name, "metric": "macro_f1" if name == "c" else "accuracy", "rows": {"train": size}}
            for name, size in sizes.items()
        ],
        "groups": [["a", "c"], ["b"]],
        "partition": {
            "expected": {"chosen": 0.6123, "one": 0.7, "each": 0.65},
            "curve": [{"m": 1, "loss": 0.7}, {"m": 2, "loss": 0.6123}],
            "gain": {"mean": 0.0812, "standard_error": 0.0211},
            "kept_champion": False,
            "scored": 7,
            "complete": True,
        },
        "methods": methods,
        "results": {
            name: {method: metrics(value) for method, value in zip(methods, values, strict=True)}
            for name, values in scores.items()
        },
        "average": {
            method: {"metric": {"value": value}} for method, value in zip(methods, (0.361, 0.803, 0.812), strict=True)
        },
        "comparisons": [{"baseline": "multitask", "difference": 0.009, "low": 0.001, "high": 0.017}],
        "cost": {
            "steps": [{"step": "warm_start", "part": "", "flops": 0, "peak_memory_bytes": 2**20}],  # theta* is reused
            "warm_start": {"flops": 8.77e11, "rows": 388.5, "peak_memory_bytes": 3 * 2**30},
            "extra_flops_share": 0.084,
        },
        "promotion": {"decision": "refused", "reason": "b lost 1.0 point", "numbers": {}},
    }


def test_training_plan_counts_what_training_does() -> None:
    config = example_config(
        training={"epochs": 2, "batch_size": 16},
        ensemble={"baselines": ["multitask", "per_dataset"]},
    )
    plan = training_plan(config, example_summary())
    assert [(adapter.name, adapter.rows, adapter.steps) for adapter in plan.adapters] == [
        ("group-0", 1077, 135),  # 2 x 1077 / 16 = 134.6
        ("group-1", 300, 38),
        ("multitask", 1377, 173),
        ("only-a", 1000, 125),
        ("only-c", 77, 10),  # b is a group of its own already
    ]
    # Training sees every row of every adapter, twice.
    assert plan.flops == pytest.approx(8.77e11 / 388.5 * (3 * 1377 - 300) * 2)
    assert plan.memory_bytes == 3 * 2**30
    raw = example_summary()
    raw["cost"]["warm_start"] = {"flops": 0, "rows": None, "peak_memory_bytes": None}
    without = training_plan(config, raw)
    assert (without.flops, without.memory_bytes) == (None, None)


def printed(show: Any, *arguments: Any) -> str:
    console = Console(file=io.StringIO(), width=100)
    show(console, *arguments)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plan_shows_groups_expectation_and_cost() -> None:
    summary = example_summary()
    lines = [
        " ".join(line.split())
        for line in printed(show_plan, summary, training_plan(example_config(), summary)).splitlines()
    ]
    for line in (
        "group-0 a, c",
        "this partition 2 0.6123",
        "one group 1 0.7000",
        "one group a dataset 3 0.6500",
        "cross-fitted gain over one group: 0.0812 ± 0.0211",
        "by number of groups: 1: 0.7000 2: 0.6123",
        "group-0 2 1077 202",
        "multitask 3 1377 259",
        "3 adapters, 518 steps, 1.87e+13 FLOPs, peak memory about 3.0 GiB",
    ):
        assert line in lines
    nothing_known = printed(show_plan, summary, TrainingPlan((), None, None))
    assert "FLOPs unknown (no warm start measured them), peak memory unknown" in nothing_known


def test_a_search_that_ran_out_of_its_budget_says_so_in_plan_and_result() -> None:
    summary = example_summary()
    said = "the search for groups ended when 20013 had been scored: there may be better ones"
    plan = training_plan(example_config(), summary)
    assert "ended when" not in printed(show_plan, summary, plan) + printed(show_result, summary, [])
    summary["partition"] |= {"scored": 20013, "complete": False}
    assert said in printed(show_plan, summary, plan).splitlines()
    assert said in printed(show_result, summary, []).splitlines()


def test_a_run_that_ended_early_says_so_and_nothing_else() -> None:
    summary = {"unchanged": {"version": "3", "reason": "nothing changed since version 3 was made; it was promoted (x)"}}
    assert printed(show_result, summary, ["-c", "config.yaml"]).splitlines() == [
        "nothing changed since version 3 was made; it was promoted (x)",
        "nothing was registered",
    ]


def test_result_tells_apart_what_decided_nothing() -> None:
    summary = example_summary()
    rows = {"frozen": 20, "gone": 0, "new": 4, "relabelled": 2, "on_new": {"value": 0.75, "low": 0.5, "high": 1.0}}
    summary["against_champion"] = {
        "test_rows": {"a": rows, "b": {**rows, "new": 0, "relabelled": 0, "on_new": None}},
        "left_out": {"c": "new since the champion"},
    }
    summary["drift"] = {"warnings": {"a": ["labels moved by 0.25 (limit 0.1)"]}}
    lines = printed(show_result, summary, ["-c", "config.yaml"]).splitlines()
    said = [line for line in lines if line.startswith(("a: ", "b: ", "c: ", "drift"))]
    assert said == [
        "a: 75.0 % on 4 new test rows, which decide nothing",
        "a: 2 of 20 frozen test rows have another label now",
        "c: not compared with the champion: new since the champion",
        "drift: a: labels moved by 0.25 (limit 0.1)",
    ]


def test_result_shows_the_table_and_the_verdict() -> None:
    lines = [
        " ".join(line.split()) for line in printed(show_result, example_summary(), ["-c", "config.yaml"]).splitlines()
    ]
    for line in (
        "dataset metric, % base one adapter ensemble",
        "a accuracy 50.0 81.0 83.4",
        "c macro F1 33.3 90.0 91.2",
        "average 36.1 80.3 81.2",
        "ensemble against one adapter: +0.9 points, 95 % interval +0.1 to +1.7",
        "FLOPs beyond one adapter on everything, which is a member: +8 %",
        "promotion: refused (b lost 1.0 point)",
        f"-> {typed('report', '-c', 'config.yaml')} tables, curves and figures",
    ):
        assert line in lines
