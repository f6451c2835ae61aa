"""`loraloom validate` and `select --validate` as a user runs them: on a tiny project, with kfp's local runner.

One history: the selection's sets are among the subsets that were fine-tuned before, so it trains nothing.
"""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from components.object_store import LocalStore
from components.step import read_records
from pipelines.cli import app
from tests.e2e.project import settings, write_project

SAMPLE = {"subsets": 2, "pairs": 0, "partitions": 1, "seeds": 2, "bootstrap": 40, "distances": [0.001, 0.01]}
NAMES = ["film", "food", "mirror"]
GROUPS = [["film", "food"], ["mirror"]]


def small(folder: Path) -> Path:
    """The project with three of its datasets."""
    path = write_project(folder)
    config = settings() | {"validation": SAMPLE, "selection": {"subsets": 8, "seeds": 2}}
    config["datasets"] = config["datasets"][:3]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("project"))


def loraloom(project: Path, *arguments: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORALOOM_PARALLELISM", "2")
        root = project.parent / "run"
        return CliRunner().invoke(app, [*arguments, "-c", str(project), "--root", str(root)], catch_exceptions=False)


@pytest.fixture(scope="module")
def validated(project: Path) -> Result:
    return loraloom(project, "validate")


def test_it_says_what_the_estimates_are_worth(project: Path, validated: Result) -> None:
    assert validated.exit_code == 0, validated.output
    summary = json.loads((project.parent / "run/validation.json").read_text())
    found = summary["validation"]
    assert found["datasets"] == NAMES
    assert (found["seeds"], found["subset_size"], found["counts"]["random"]) == (2, 2, 2)
    assert all(sentence in validated.output for sentence in found["verdict"])
    assert found["groups"]["chosen"] == GROUPS
    assert [one["name"] for one in found["partitions"]] == ["chosen", "one", "each", "spectral", "random", "random-0"]
    assert {tuple(inside) for inside in found["subsets"].values()} >= {("film", "food"), ("mirror",), tuple(NAMES)}
    cells = {(cell["subset"], cell["dataset"]) for cell in found["cells"]}
    assert cells == {(job, name) for job, inside in found["subsets"].items() for name in inside}
    assert all(len(cell["true"]) == 2 and cell["true"][0] != cell["true"][1] for cell in found["cells"])


def test_first_order_errors_grow_with_distance_and_costs_are_counted(project: Path, validated: Result) -> None:
    found = json.loads((project.parent / "run/validation.json").read_text())["validation"]
    near, far = found["linearity"]["mean"]
    assert 0 < near["unprojected"]["relative"] < far["unprojected"]["relative"]
    assert near["unprojected"]["relative"] < 0.05
    cost = found["cost"]
    assert cost["subsets"] == 7 and cost["estimating"]["flops"] > 0 and cost["fine_tuning"]["seconds"] > 0
    mean = cost["fine_tuning"]["flops"] / sum(2 * len(inside) for inside in found["subsets"].values())
    assert cost["a_subset"] == pytest.approx(mean)
    assert cost["ratio_own"] == pytest.approx(12 * mean / cost["estimating"]["flops"])  # 7 subsets of 3: 12 memberships


def test_selection_uses_what_was_fine_tuned(project: Path, validated: Result) -> None:
    shown = loraloom(project, "select", "--target", "film", "--validate")
    assert shown.exit_code == 0, shown.output
    found = json.loads((project.parent / "run/selection.json").read_text())
    selection = found["selection"]
    assert {one["name"] for one in selection["order"]} == {"food", "mirror"}
    assert set(selection["confirmed"]) == {"none", "chosen", "all"}
    assert f"{selection['confirmed']['none']['test']['mean']:.4f}" in shown.output
    assert shown.output.splitlines()[-1] == f"-> {project.parent / 'run/selection.json'}"
    store = LocalStore(project.parent / "run/store")
    records = [one for one in read_records(store, found["run_id"]) if one["step"] == "fine_tune"]
    assert records and all(one["flops"] == 0 for one in records if one["part"] in ("none", "all"))


def test_an_unknown_target_is_told_at_once(project: Path) -> None:
    shown = loraloom(project, "select", "--target", "nobody")
    assert shown.exit_code == 2
    assert "nobody is no dataset of" in shown.output
