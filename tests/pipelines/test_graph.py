"""The graph as the compiler sees it: what waits for what, and the rules that keep KFP's traps away."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler

from components.config import RunConfig
from components.errors import UserError
from pipelines.catalogue import Until, check_until
from pipelines.ensemble import ensemble_pipeline, plan_pipeline
from pipelines.selection import confirmed_selection_pipeline, selection_pipeline
from pipelines.validation import validation_pipeline

# What each task reads from; config and run name come from outside. What stands in the branch of the whole pipeline
# waits for the branch, and so for what the branch reads.
PLAN = {
    "open-run": set(),
    "prepare": set(),
    "warm-start": {"open-run", "prepare"},
    "extract-all": {"prepare", "warm-start"},
    "estimate": {"prepare", "extract-all"},
    "partition": {"open-run", "prepare", "extract-all", "estimate"},
}
REST = {
    "train-all": {"open-run", "prepare", "warm-start", "partition"},
    "boost-all": {"open-run", "prepare", "warm-start", "extract-all", "partition", "train-all"},
    "weigh": {"prepare", "extract-all", "partition", "train-all", "boost-all"},
    "servable": {"prepare", "warm-start", "extract-all", "partition", "train-all", "boost-all", "weigh"},
    "evaluate": {"open-run", "prepare", "extract-all", "partition", "train-all", "boost-all", "weigh"},
    "register": {
        "open-run", "prepare", "warm-start", "estimate", "partition", "train-all", "boost-all", "weigh", "servable",
        "evaluate",
    },
    "promote": {"open-run", "register"},
}  # fmt: skip
TRUTH = {
    "linearity": {"prepare", "warm-start", "extract-all", "partition"},
    "sample": {"prepare", "estimate", "partition"},
    "fine-tune-all": {"prepare", "warm-start", "sample"},
    "judge": {
        "open-run", "prepare", "warm-start", "extract-all", "estimate", "linearity", "sample", "fine-tune-all",
    },
}  # fmt: skip
FEATURES = {task: PLAN[task] for task in ("open-run", "prepare", "warm-start", "extract-all")}
CHOICE = FEATURES | {"select": {"prepare", "extract-all"}}
CONFIRMED = {
    "fine-tune-all": {"prepare", "warm-start", "select"},
    "confirm": {"open-run", "prepare", "select", "fine-tune-all"},
}
LOOPS = {"extract": "extract-all", "train": "train-all", "boost": "boost-all", "fine-tune": "fine-tune-all"}
GRAPHS = {
    "plan": (plan_pipeline, PLAN),
    "ensemble": (ensemble_pipeline, PLAN | REST),
    "validation": (validation_pipeline, PLAN | TRUTH),
    "selection": (selection_pipeline, CHOICE),
    "confirmed": (confirmed_selection_pipeline, CHOICE | CONFIRMED),
}
PLAIN = [name for name in GRAPHS if name != "ensemble"]  # without a branch
BEFORE = {"open-run", "prepare"}


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder, found = tmp_path_factory.mktemp("graphs"), {}
    for name, (pipeline, _) in GRAPHS.items():
        compiler.Compiler().compile(pipeline, str(folder / f"{name}.yaml"))
        found[name] = yaml.safe_load(Path(folder / f"{name}.yaml").read_text())
    return found


def dags(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tasks of every level, by the component that holds them."""
    nested = {name.removeprefix("comp-"): part for name, part in spec["components"].items() if "dag" in part}
    return {name: part["dag"]["tasks"] for name, part in ({"root": spec["root"]} | nested).items()}


def branch(spec: dict[str, Any]) -> str:
    """The level that is left out where nothing changed; '' where there is none. KFP numbers it as it likes."""
    return next((level for level in dags(spec) if level.startswith("condition-")), "")


def waits(tasks: dict[str, Any]) -> dict[str, set[str]]:
    return {task: set(entry.get("dependentTasks", [])) for task, entry in tasks.items()}


def test_what_waits_for_what(specs: dict[str, Any]) -> None:
    for name in PLAIN:
        assert waits(dags(specs[name])["exit-handler-1"]) == GRAPHS[name][1]
    levels, changed = dags(specs["ensemble"]), branch(specs["ensemble"])
    before = {task: PLAN[task] for task in BEFORE}
    assert waits(levels["exit-handler-1"]) == {**before, "changes": BEFORE, changed: {*BEFORE, "changes"}}
    rest = {task: needed - BEFORE for task, needed in (PLAN | REST).items() if task not in BEFORE}
    assert waits(levels[changed]) == rest


def test_the_rest_is_only_run_where_something_changed(specs: dict[str, Any]) -> None:
    condition = dags(specs["ensemble"])["exit-handler-1"][branch(specs["ensemble"])]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--changes-Output'] == 'yes'"


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("plan", "partition"), ("ensemble", "promote"), ("validation", "judge"), ("selection", "select"),
        ("confirmed", "confirm"),
    ],
)  # fmt: skip
def test_however_it_ends_the_run_is_closed(specs: dict[str, Any], name: str, last: str) -> None:
    tasks = dags(specs[name])["root"]
    assert set(tasks) == {"close-run", "exit-handler-1"}
    closed = tasks["close-run"]
    assert closed["dependentTasks"] == ["exit-handler-1"]
    assert closed["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert closed["inputs"]["parameters"]["last"] == {"runtimeValue": {"constant": last}}
    ends = set(GRAPHS[name][1]) - {before for reads in GRAPHS[name][1].values() for before in reads}
    assert ends == {last}  # what the exit step takes for a good end is the one task that nothing waits for


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_is_cached_by_kfp(specs: dict[str, Any], name: str) -> None:
    # Caching that is off is written as empty options; a loop has no options of its own.
    for level, tasks in dags(specs[name]).items():
        for task, entry in tasks.items():
            assert entry.get("cachingOptions", {}) == {}, f"{task} in {level}"


@pytest.mark.parametrize("name", GRAPHS)
def test_every_loop_sits_in_a_nested_pipeline(specs: dict[str, Any], name: str) -> None:
    looping = {}
    for level, tasks in dags(specs[name]).items():
        for entry in tasks.values():
            if "parameterIterator" in entry:
                inner = dags(specs[name])[entry["componentRef"]["name"].removeprefix("comp-")]
                assert len(inner) == 1
                looping[next(iter(inner))] = level
            assert "artifactIterator" not in entry
    assert looping == {step: level for step, level in LOOPS.items() if level in GRAPHS[name][1]}


@pytest.mark.parametrize("name", GRAPHS)
def test_inside_a_loop_nothing_reads_another_tasks_output(specs: dict[str, Any], name: str) -> None:
    # KFP's local runner would silently put the loop's item in the place of such a parameter.
    for level, tasks in dags(specs[name]).items():
        if level not in ("root", "exit-handler-1", branch(specs[name])):
            for entry in tasks.values():
                assert not [value for value in entry["inputs"]["parameters"].values() if "taskOutputParameter" in value]


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_is_installed_at_run_time_and_every_step_says_what_it_is(specs: dict[str, Any], name: str) -> None:
    for executor in specs[name]["deploymentSpec"]["executors"].values():
        assert "pip install" not in " ".join(executor["container"]["command"])
    assert list(specs[name]["root"]["inputDefinitions"]["parameters"]) == ["config", "run_name"]
    shown = {"ensemble": "loraloom", "confirmed": "loraloom-selection-confirmed"}
    assert specs[name]["pipelineInfo"]["name"] == shown.get(name, f"loraloom-{name}")


def config(*datasets: str, target: str | None = None) -> RunConfig:
    entries = [{"name": name, "path": "/data"} for name in datasets]
    return RunConfig.model_validate({"model": {"id": "x"}, "datasets": entries, "selection": {"target": target}})


@pytest.mark.parametrize("until", ["judge", "select", "confirm"])
def test_one_dataset_has_nothing_to_be_compared_with(until: Until) -> None:
    with pytest.raises(UserError, match="one dataset has no subsets to compare"):
        check_until(config("a", target="a"), until)
    check_until(config("a"), "promote")


@pytest.mark.parametrize("until", ["select", "confirm"])
def test_a_pipeline_that_chooses_for_a_dataset_needs_its_name(until: Until) -> None:
    with pytest.raises(UserError, match=rf"--until {until} chooses .*\n-> set selection.target .* one of a, b"):
        check_until(config("a", "b"), until)
    check_until(config("a", "b", target="b"), until)
    check_until(config("a", "b"), "judge")
