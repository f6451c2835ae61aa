"""A small project from its first run on: nothing changed, new rows and a bad setting, a plan, a second version.

The runs are real: kfp's local runner with a process for every step, MLflow on SQLite, a model that is trained.
Each takes a minute or so, hence one history that all tests look at.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from components import tracking
from components.artifacts import find
from components.config_file import read_config
from components.errors import UserError
from components.label_logits import FILE
from components.prepared import read_prepared
from components.registry.lineage import lineage
from components.serving.export import served_adapter
from components.tables import read_logits
from pipelines.cli import app
from pipelines.training_plan import training_plan
from tests.e2e.project import LABELS, grow, settings
from tests.e2e.runs import Project, Records, Run
from tests.listener import listening

GROUPS = [["film", "food"], ["mirror", "reverse"]]  # those that answer alike
PLAN = "open_run prepare warm_start extract estimate partition".split()
STEPS = [*PLAN, *"changes train boost weigh servable evaluate register promote close_run".split()]
NEW_TEST_ROWS = 6
Failure = tuple[UserError, Records, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORALOOM_PARALLELISM", "2")
        yield Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def first(project: Project) -> Run:
    return project.run()


@pytest.fixture(scope="module")
def second(project: Project, first: Run) -> Run:
    """The same again, from a root that has lost the first run's summary."""
    (project.root / "summary.json").unlink()
    return project.run()


@pytest.fixture(scope="module")
def failure(project: Project, second: Run) -> Failure:
    """New rows for `film`, but a learning rate that cannot work; with what the webhook heard of it."""
    grow(project.config_file.parent / "film", train=12, test=NEW_TEST_ROWS)
    wrong = settings()
    wrong["warm_start"]["learning_rate"] = 1e30
    project.config_file.write_text(yaml.safe_dump(wrong))
    before = set(project.store.keys("runs/"))
    with pytest.MonkeyPatch.context() as patch, listening() as listener, pytest.raises(UserError) as caught:
        patch.setenv("LORALOOM_WEBHOOK", listener.url)
        project.run()
    (run_name,) = {key.split("/")[1] for key in set(project.store.keys("runs/")) - before}
    project.config_file.write_text(yaml.safe_dump(settings()))
    return caught.value, project.records(run_name), listener.received


@pytest.fixture(scope="module")
def planned(project: Project, failure: Failure) -> Run:
    """A plan with the settings put right."""
    before = (project.root / "summary.json").read_text()
    plan = project.run(until="partition")
    assert (project.root / "summary.json").read_text() == before
    return plan


@pytest.fixture(scope="module")
def third(project: Project, planned: Run) -> Run:
    return project.run()


def test_the_summary_says_what_happened(first: Run) -> None:
    summary = first.summary
    assert [dataset["name"] for dataset in summary["datasets"]] == list(LABELS)
    assert summary["datasets"][0]["rows"] == {"train": 40, "validation": 20, "test": 20}
    assert [dataset["truncated"] for dataset in summary["datasets"]] == [{}] * 4
    assert summary["datasets"][0]["entropy"] == pytest.approx(math.log(2), abs=0.05)
    assert summary["groups"] == GROUPS
    assert summary["affinity"]["subsets"] == 15
    assert summary["methods"] == ["base", "start", "multitask", "group", "ensemble"]
    assert set(summary["curves"]) == {"group-0", "group-1", "multitask"}
    assert len(summary["versions"]["git_sha"]) == 40
    assert summary["promotion"]["decision"] == "promoted"


def test_weights_lie_on_the_simplex(first: Run) -> None:
    weights = first.summary["weights"]
    matrix = np.array(weights["matrix"])
    assert (weights["datasets"], weights["members"]) == (list(LABELS), ["group-0", "group-1", "multitask"])
    assert matrix.shape == (4, 3)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-9)
    assert len(weights["temperatures"]) == 4 and min(weights["temperatures"]) >= 1


def test_every_result_lies_in_its_interval_and_the_ensemble_helps(first: Run) -> None:
    results = first.summary["results"]
    assert set(results) == set(LABELS)
    for methods in results.values():
        assert set(methods) == set(first.summary["methods"])
        for found in methods.values():
            assert set(found) == {"accuracy", "macro_f1", "cross_entropy", "ece"}
            assert all(value["low"] <= value["value"] <= value["high"] for value in found.values())
    average = first.summary["average"]
    # One adapter cannot answer the same question both ways; two can.
    assert average["ensemble"]["metric"]["value"] > average["multitask"]["metric"]["value"] + 0.1
    (comparison,) = first.summary["comparisons"]
    assert comparison["baseline"] == "multitask"
    assert comparison["difference"] == pytest.approx(
        average["ensemble"]["metric"]["value"] - average["multitask"]["metric"]["value"]
    )


def test_every_step_has_its_cost(first: Run) -> None:
    costs = first.summary["cost"]["steps"]
    assert sorted({step["step"] for step in costs}) == sorted(STEPS)
    assert [step["part"] for step in costs if step["step"] == "train"] == ["group-0", "group-1", "multitask"]
    assert all(step["seconds"] >= 0 and step["peak_memory_bytes"] > 0 and not step["reused"] for step in costs)
    spent = {(step["step"], step["part"]): step["flops"] for step in costs if step["flops"]}
    assert {step for step, _ in spent} == {"warm_start", "extract", "estimate", "partition", "train", "boost"}
    flops = first.summary["cost"]["training_flops"]
    assert flops["ours"] == sum(spent.values())
    assert flops["multitask"] == spent["train", "multitask"]
    assert flops["plan"] == spent["estimate", ""] + spent["partition", ""]


def test_every_digest_is_the_stores(project: Project, first: Run) -> None:
    artifacts = first.summary["artifacts"]
    assert {f"adapter/{name}" for name in ("group-0", "group-1", "multitask")} <= set(artifacts)
    for entry in artifacts.values():
        manifest = json.loads(project.store.read(f"{entry['key']}/manifest.json"))
        assert manifest["digest"] == entry["digest"]
    for dataset in first.summary["datasets"]:
        assert artifacts[f"dataset/{dataset['name']}"]["digest"] == dataset["digest"]


def test_mlflow_has_runs_versions_and_aliases(project: Project, first: Run) -> None:
    client, mlflow = project.client, first.summary["mlflow"]
    parent = client.get_run(mlflow["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.info.experiment_id == mlflow["experiment_id"]
    assert parent.data.metrics["average.ensemble"] == first.summary["average"]["ensemble"]["metric"]["value"]
    kept = {name for name, boosted in first.summary["boosting"].items() if boosted["kept"]}
    assert set(mlflow["adapters"]) == {"group-0", "group-1", "multitask"} | kept
    for name, adapter in mlflow["adapters"].items():
        child = client.get_run(adapter["run_id"])
        assert (child.info.status, child.data.tags[tracking.PARENT]) == ("FINISHED", mlflow["run_id"])
        label = f"booster/{name}" if name in kept else f"adapter/{name}"
        version = client.get_model_version("small-adapters", adapter["version"])
        assert version.tags["digest"] == first.summary["artifacts"][label]["digest"]
    assert (project.alias("champion"), project.alias("challenger"), mlflow["ensemble_version"]) == (1, 1, "1")


def test_a_version_is_walked_back_to_everything_it_was_made_from(project: Project, first: Run) -> None:
    found = lineage(project.client, "small", "1")
    artifacts = first.summary["artifacts"]
    assert found["datasets"] == {name: artifacts[f"dataset/{name}"]["digest"] for name in LABELS}
    shipped = {name: f"adapter/{name}" for name in ("group-0", "group-1", "multitask")} | {"start": "start"}
    shipped |= {label.replace("/", "-"): label for label in artifacts if label.startswith("booster/")}
    assert {name: adapter["digest"] for name, adapter in found["adapters"].items()} == {
        name: artifacts[label]["digest"] for name, label in shipped.items()
    }
    assert [found["adapters"][f"group-{k}"]["datasets"] for k in range(2)] == GROUPS
    assert found["artifacts"]["affinity"]["digest"] == artifacts["affinity"]["digest"]
    assert found["artifacts"]["partition"]["digest"] == artifacts["partition"]["digest"]
    assert (found["start"], found["git_sha"]) == (
        artifacts["start"]["digest"],
        first.summary["versions"]["git_sha"],
    )
    assert found["base"]["id"] == str(project.config_file.parent / "model")
    assert found["gate"]["decision"] == "promoted"
    options = ["lineage", "-c", str(project.config_file), "--root", str(project.root), "--version", "champion"]
    told = CliRunner().invoke(app, options)
    assert (told.exit_code, json.loads(told.stdout)["ensemble_digest"]) == (0, found["ensemble_digest"])


def test_the_report_is_one_file(project: Project, first: Run) -> None:
    page = (project.root / "report.html").read_text()
    assert all(name in page for name in LABELS)
    assert "<svg" in page or "data:image" in page
    for outside in ('src="http', 'href="http', "url(http", "@import"):
        assert outside not in page


def check_logits(project: Project, run: Run, model: Any, name: str, stored_as: str) -> None:
    """A model of plain transformers and peft gives the logits that the run stored for a dataset's validation rows."""
    artifacts = run.summary["artifacts"]
    tokenizer: Any = AutoTokenizer.from_pretrained(project.config_file.parent / "model")
    data = find(project.store, artifacts[f"dataset/{name}"]["key"])
    stored = find(project.store, artifacts[f"logits/{stored_as}/{name}/validation"]["key"])
    assert data is not None and stored is not None
    split, table = read_prepared(data).splits["validation"], read_logits(stored.folder, FILE)
    assert split.row.tolist() == table.row.tolist()
    words = [tokenizer.encode(word, add_special_tokens=False)[0] for word in ("bad", "good")]
    for text, expected in zip(split.fields["text"], table.logits, strict=True):
        ids = tokenizer(f"{text}\nMood:\n", return_tensors="pt").input_ids
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, -1, words].numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def plain_base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_adapters_give_the_stored_logits_in_plain_peft(project: Project, first: Run) -> None:
    adapter = find(project.store, first.summary["artifacts"]["adapter/group-1"]["key"])
    assert adapter is not None
    base = plain_base(project.config_file.parent / "model")
    model = PeftModel.from_pretrained(base, str(adapter.folder)).eval()
    check_logits(project, first, model, "mirror", "group-1")


def test_what_is_exported_gives_the_stored_logits_in_plain_peft(project: Project, first: Run, tmp_path: Path) -> None:
    options = ["-c", str(project.config_file), "--root", str(project.root), "--version", "1"]
    wrote = CliRunner().invoke(app, ["export", "-o", str(tmp_path), *options, "--merge-into-base", "mirror"])
    assert wrote.exit_code == 0, wrote.stderr
    exported = tmp_path / "small" / "1"
    described = json.loads((exported / "ensemble" / "ensemble.json").read_text())
    served = {name: served_adapter(described, name) for name in LABELS}
    for name in LABELS:
        model = PeftModel.from_pretrained(
            plain_base(project.config_file.parent / "model"), str(exported / "datasets" / name)
        )
        check_logits(project, first, model.eval(), name, served[name])
    check_logits(project, first, plain_base(exported / "merged" / "mirror").eval(), "mirror", served["mirror"])
    result = first.summary["results"]["mirror"]["ensemble"]["accuracy"]["value"]
    assert f"| ensemble | {result:.4f} [" in (exported / "datasets" / "mirror" / "README.md").read_text()


def test_when_nothing_changed_the_run_ends_early(project: Project, first: Run, second: Run) -> None:
    assert {step for step, _ in second.records} == {"open_run", "prepare", "changes", "close_run"}
    assert second.records["prepare", ""]["reused"]
    assert "Loading weights" in first.log
    assert "Loading weights" not in second.log
    train, looked = first.records["train", "group-0"], second.records["changes", ""]
    assert looked["peak_memory_bytes"] < 0.7 * train["peak_memory_bytes"]  # not even torch is imported
    assert second.summary["unchanged"]["version"] == "1"


def test_when_nothing_changed_nothing_is_registered(project: Project, first: Run, second: Run) -> None:
    assert project.versions() == {1}
    parent = project.client.get_run(second.summary["mlflow"]["run_id"])
    assert (parent.info.status, parent.data.tags["loraloom.outcome"]) == ("FINISHED", "unchanged")
    saved = json.loads((project.root / "summary.json").read_text())
    assert saved["run_id"] == first.summary["run_id"], "the report on what there is comes back from MLflow"
    assert saved["mlflow"]["ensemble_version"] == "1"


def test_a_failure_says_what_to_do_and_keeps_what_is_finished(project: Project, first: Run, failure: Failure) -> None:
    error, records, _ = failure
    assert (error.what, error.remedy) == (
        "training diverged: the loss is not finite",
        "lower warm_start.learning_rate",
    )
    assert {step for step, _ in records} == {"open_run", "prepare", "changes", "close_run"}
    assert records["close_run", ""]["facts"] == {"failed": True}
    assert project.client.get_run(records["open_run", ""]["facts"]["run_id"]).info.status == "FAILED"
    prepared = records["prepare", ""]["artifacts"]
    assert {name for name, entry in prepared.items() if entry["fresh"]} == {"film"}
    assert prepared["film"]["digest"] != first.summary["artifacts"]["dataset/film"]["digest"]
    assert all(find(project.store, entry["key"]) is not None for entry in prepared.values())


def test_a_failure_is_told_to_the_webhook_once(failure: Failure) -> None:
    error, records, (told,) = failure
    assert (told["event"], told["name"]) == ("run_failed", "small")
    assert told["text"] == f"run {told['run_name']} of small failed: {error.what}"
    assert told["details"]["log"].endswith(f"/logs/{told['run_name']}.log")
    assert records["close_run", ""]["facts"] == {"failed": True}


def test_a_plan_goes_on_from_there(project: Project, planned: Run) -> None:
    assert (project.root / "plan.html").is_file()
    assert {"groups", "partition", "affinity"} <= set(planned.summary)
    assert not {"results", "weights", "promotion"} & set(planned.summary)
    assert {step for step, _ in planned.records} == {*PLAN, "close_run"}
    assert planned.records["prepare", ""]["reused"]  # the run that failed had come as far
    run = project.client.get_run(planned.records["open_run", ""]["facts"]["run_id"])
    assert run.info.status == "FINISHED"


def test_new_rows_change_only_what_depends_on_them(project: Project, first: Run, planned: Run, third: Run) -> None:
    assert planned.summary["artifacts"]["start"] == first.summary["artifacts"]["start"]  # theta* is pinned
    assert planned.fresh("features") == {"features/film"}
    assert third.fresh("features") == third.fresh("affinity") == third.fresh("partition") == set()  # the plan's
    assert third.summary["groups"] == GROUPS
    assert third.summary["partition"]["kept_champion"] is True
    assert third.fresh("adapter") == {"adapter/group-0", "adapter/multitask"}
    before, after = first.summary["artifacts"], third.summary["artifacts"]
    assert after["adapter/group-1"] == before["adapter/group-1"]
    assert third.summary["mlflow"]["adapters"]["group-1"] == first.summary["mlflow"]["adapters"]["group-1"]


def test_logits_of_rows_that_were_known_are_not_computed_again(project: Project, planned: Run, third: Run) -> None:
    artifacts = third.summary["artifacts"]
    for model in ("base", "start", "group-1"):
        known = project.facts(artifacts[f"logits/{model}/film/test"]["key"])
        assert known == {"rows": 20 + NEW_TEST_ROWS, "computed": NEW_TEST_ROWS}
    known = project.facts(artifacts["logits/group-0/film/test"]["key"])
    assert known["computed"] == known["rows"]  # another adapter: nothing is known of it


def test_a_plan_from_a_reused_start_knows_what_training_takes(project: Project, first: Run, planned: Run) -> None:
    config = read_config(project.config_file)
    made, reused = training_plan(config, first.summary), training_plan(config, planned.summary)
    assert made.memory_bytes == reused.memory_bytes
    (warm,) = (step for step in first.summary["cost"]["steps"] if step["step"] == "warm_start")
    assert made.memory_bytes is not None and made.memory_bytes == pytest.approx(warm["peak_memory_bytes"], rel=0.1)
    assert made.flops is not None and reused.flops is not None
    assert reused.flops > made.flops  # `film` has grown


def test_the_new_ensemble_is_a_second_version(project: Project, first: Run, third: Run) -> None:
    mlflow = third.summary["mlflow"]
    assert (mlflow["ensemble_version"], mlflow["ensemble_changed"]) == ("2", True)
    assert project.versions() == {1, 2}
    champion = third.summary["comparisons"][-1]
    assert champion["baseline"] == "champion"
    promoted = champion["difference"] > 0  # margin and floor are wide open
    assert third.summary["promotion"]["decision"] == ("promoted" if promoted else "refused")
    assert (project.alias("challenger"), project.alias("champion")) == (2, 2 if promoted else 1)
    found = lineage(project.client, "small", "2")
    assert found["datasets"]["film"] == third.summary["artifacts"]["dataset/film"]["digest"]
    assert found["adapters"]["group-1"]["run_id"] == first.summary["mlflow"]["adapters"]["group-1"]["run_id"]


@pytest.mark.parametrize("command", ["check", "plan", "run", "compile"])
def test_a_bad_config_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = settings()
    wrong["training"]["epochs"], wrong["lora"]["rnk"], wrong["partition"]["groups"] = 0, 4, 5
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(wrong))
    shown = CliRunner().invoke(app, [command])
    assert shown.exit_code == 2
    assert shown.stderr.startswith("error: 3 problems in config.yaml\n")
    for setting in ("training.epochs", "lora.rnk", "partition.groups"):
        assert f": {setting}: " in shown.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
