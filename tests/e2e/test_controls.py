"""The controls of ``benchmarks/truth`` against the product: the same groups, answers and FLOPs from like adapters."""

from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from benchmarks.truth import controls
from benchmarks.truth.members import Members
from benchmarks.truth.methods import Method, Results, add
from benchmarks.truth.names import EACH, ENSEMBLE, FROM_START, GROUPS, RANDOM, RAW
from benchmarks.truth.planned import Planned
from components.artifacts import find
from components.config_file import read_config
from tests.e2e.in_process import run_steps
from tests.e2e.project import settings, write_project


@dataclass
class Study:
    """One seed of the controls beside a run of the product."""

    summary: dict[str, Any]
    members: Members
    methods: dict[str, Method]
    results: Results
    groups: list[list[str]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("project")
    path, root = write_project(folder), folder / "run"
    path.write_text(yaml.safe_dump(settings() | {"boosting": {"steps": 0}}, sort_keys=False))
    summary = run_steps(path, root)
    config = read_config(path).model_dump(mode="json")
    planned = Planned.of(root, config)
    found, results = {}, Results()
    for method in controls.methods(planned.members, planned.groups, seed=0):
        found[method.name] = method
        add(results, planned.members, method, seed=0)
    return Study(summary, planned.members, found, results, planned.groups)


def test_the_groups_are_the_products(study: Study) -> None:
    assert study.groups == study.summary["groups"] == [["film", "food"], ["mirror", "reverse"]]


@pytest.mark.parametrize(("method", "products"), [(ENSEMBLE, "ensemble"), (FROM_START, "multitask")])
def test_the_answers_are_the_products(study: Study, method: str, products: str) -> None:
    (found,), average = study.results[method], study.summary["average"][products]
    assert found["metric"] == pytest.approx(average["metric"]["value"], abs=1e-6)
    one = study.summary["results"]["film"][products]["accuracy"]["value"]
    assert found["by_dataset"][0] == pytest.approx(one, abs=1e-6)


def test_flops_are_the_products_and_those_of_the_plan_apart(study: Study) -> None:
    spent, (ensemble,), (once,) = (
        study.summary["cost"]["training_flops"],
        study.results[ENSEMBLE],
        study.results[FROM_START],
    )
    assert ensemble["flops"] == spent["ours"] - spent["plan"]
    assert study.members.plan == spent["plan"] > 0
    before = spent["warm_start"] + spent["extract"]
    assert study.results[GROUPS][0]["flops"] == before + spent["groups"]
    warm = find(study.members.step.store, study.summary["artifacts"]["start"]["key"])
    assert warm is not None and once["flops"] == warm.facts["flops"] + spent["multitask"]  # it needs no features


def test_every_control_is_made_of_other_adapters(study: Study) -> None:
    def adapters(name: str) -> set[str]:
        return {part.digest for part, _ in study.methods[name].parts if part is not None}

    assert adapters(ENSEMBLE) == adapters(GROUPS) | adapters(FROM_START) and len(adapters(ENSEMBLE)) == 3
    assert not adapters(RANDOM) & adapters(GROUPS) and adapters(RANDOM) > adapters(FROM_START)
    assert len(adapters(EACH)) == 4 and not adapters(RAW) & adapters(FROM_START)
    assert len(adapters("two multi-task, weighted")) == len(adapters("2 adapters on everything, 1/2 of the steps")) == 2


def test_a_method_without_a_warm_start_does_not_pay_for_it(study: Study) -> None:
    ((adapter, _),), (found,) = study.methods[RAW].parts, study.results[RAW]
    assert adapter is not None and found["flops"] == adapter.facts["flops"]
