"""A year in the life of an ensemble, in small: trained, left alone, given new rows, poisoned, rolled back.

One history that all tests look at. The listener at the webhook's end is real HTTP, promotion by hand goes through the
command line.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from components.object_store import LocalStore
from components.step import read_records
from components.tracking import connect
from pipelines.cli import app
from tests.e2e.in_process import run_steps, told_to_a_listener
from tests.e2e.project import LABELS, NOUNS, PARTS, sentences, settings, write_rows
from tests.listener import Listener
from tests.tiny_ensemble import write_base

GROUPS = [["film", "food"], ["mirror", "reverse"]]
# Rows of a kind that `film` is tested on but not trained on at first: exclamation or question marks, and no adjective.
LATE_TEST_ROWS, NEW_TEST_ROWS = 10, 4
ADDED = {"train": 6, "validation": 6, "test": NEW_TEST_ROWS}
Summary = dict[str, Any]


def late_rows(count: int) -> list[dict[str, str]]:
    said = itertools.cycle([("!!!!", "good"), ("????", "bad")])
    nouns = itertools.chain.from_iterable((noun, noun) for noun in NOUNS * 3)
    return [
        {"text": f"{what} {noun} {500 + number}", "label": label}
        for number, (noun, (what, label)) in enumerate(itertools.islice(zip(nouns, said, strict=False), count))
    ]


def write_project(folder: Path) -> Path:
    write_base(folder / "model")
    for number, name in enumerate(LABELS):
        (folder / name).mkdir()
        usual = list(sentences(name, 100 * number))
        for part, count in PARTS.items():
            late = late_rows(LATE_TEST_ROWS) if (part, name) == ("test", "film") else []
            write_rows(folder / name / f"{part}.jsonl", late + [usual.pop() for _ in range(count - len(late))])
    config = settings()
    config["gradients"]["samples_per_dataset"] = 12
    config["training"] = {"epochs": 4, "learning_rate": 0.02}
    config["ensemble"]["baselines"] = []
    config["registry"] = {"margin": 0.1, "floor": 0.2}
    config["drift"] = {"features": 0.2}  # theta* has seen too little here for wrong labels to show in its margins
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def flip(folder: Path) -> None:
    """Turn the labels of what a dataset is trained and tuned on; its test rows stay."""
    for part in ("train", "validation"):
        path = folder / f"{part}.jsonl"
        turned = [json.loads(line) for line in path.read_text().splitlines()]
        path.unlink()
        write_rows(path, [{**row, "label": {"good": "bad", "bad": "good"}[row["label"]]} for row in turned])


class History:
    """The project, the webhook's listener, and the runs so far."""

    def __init__(self, folder: Path, listener: Listener) -> None:
        self.config, self.root, self.listener = write_project(folder), folder / "run", listener
        self.client = connect(f"sqlite:///{self.root}/mlflow.db")

    def run(self) -> Summary:
        return run_steps(self.config, self.root)

    def cli(self, *command: str) -> str:
        options = ["-c", str(self.config), "--root", str(self.root)]
        done = CliRunner().invoke(app, [*command, *options], env={"COLUMNS": "120"})
        assert done.exit_code == 0, done.output
        return done.stdout

    def champion(self) -> str:
        return str(self.client.get_model_version_by_alias("small", "champion").version)

    def records(self, summary: Summary) -> list[dict[str, Any]]:
        return read_records(LocalStore(self.root / "store"), summary["run_id"])

    def flops(self, summary: Summary) -> dict[str, int]:
        """FLOPs that the run spent, by step; there are no baselines in it."""
        spent: dict[str, int] = {}
        for record in self.records(summary):
            spent[record["step"]] = spent.get(record["step"], 0) + record["flops"]
        return spent

    def fresh(self, summary: Summary, kind: str) -> set[str]:
        made = {label: entry for record in self.records(summary) for label, entry in record["artifacts"].items()}
        return {label for label, entry in made.items() if entry["fresh"] and label.split("/")[0] == kind}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with told_to_a_listener(tmp_path_factory.mktemp("events") / "events.jsonl") as listener:
        yield History(tmp_path_factory.mktemp("project"), listener)


@pytest.fixture(scope="module")
def first(history: History) -> Summary:
    return history.run()


@pytest.fixture(scope="module")
def same(history: History, first: Summary) -> Summary:
    return history.run()


@pytest.fixture(scope="module")
def regated(history: History, same: Summary) -> Summary:
    """The same data and training, another floor: there is something to decide, and nothing to compute."""
    config = yaml.safe_load(history.config.read_text())
    config["registry"]["floor"] = 0.15
    history.config.write_text(yaml.safe_dump(config))
    return history.run()


@pytest.fixture(scope="module")
def grown(history: History, regated: Summary) -> Summary:
    """New rows of that kind for `film`: to learn from, to tune on, and to be tested on."""
    late = iter(late_rows(LATE_TEST_ROWS + sum(ADDED.values()))[LATE_TEST_ROWS:])
    for part, count in ADDED.items():
        write_rows(history.config.parent / "film" / f"{part}.jsonl", itertools.islice(late, count))
    return history.run()


@pytest.fixture(scope="module")
def poisoned(history: History, grown: Summary) -> Summary:
    assert history.listener.received == []
    flip(history.config.parent / "food")
    return history.run()


@pytest.fixture(scope="module")
def rolled_back(history: History, poisoned: Summary) -> str:
    return history.cli("rollback", "-m", "complaints about film")


def test_the_first_version_serves(history: History, first: Summary) -> None:
    assert first["groups"] == GROUPS
    assert first["promotion"]["decision"] == "promoted" and first["mlflow"]["ensemble_version"] == "1"
    assert "drift" not in first and "against_champion" not in first


def test_nothing_changed_ends_the_run_after_a_look_at_the_datasets(
    history: History, first: Summary, same: Summary
) -> None:
    assert {record["step"] for record in history.records(same)} == {"open_run", "prepare", "changes", "close_run"}
    assert sum(history.flops(same).values()) == 0
    assert same["unchanged"]["version"] == "1"
    assert same["unchanged"]["reason"].startswith("nothing changed since version 1 was made; it was promoted")
    run = history.client.get_run(same["mlflow"]["run_id"])
    assert (run.info.status, run.data.tags["loraloom.outcome"]) == ("FINISHED", "unchanged")
    assert run.outputs.model_outputs == []
    assert json.loads((history.root / "summary.json").read_text())["run_id"] != same["run_id"]


def test_another_gate_is_asked_without_computing_anything(history: History, first: Summary, regated: Summary) -> None:
    # There is a champion now: whether to keep its groups, and how it compares, are new questions. All else is known.
    records = history.records(regated)
    anew = {record["step"] for record in records if record["artifacts"] and not record["reused"]}
    assert anew == {"partition", "evaluate"}
    assert {step for step, flops in history.flops(regated).items() if flops} == {"partition"}  # its search alone
    for key in ("groups", "weights", "results", "curves", "boosting", "average"):
        assert regated[key] == first[key]
    before, now = (
        {key: flops for key, flops in summary["cost"]["training_flops"].items() if key not in ("ours", "plan")}
        for summary in (first, regated)
    )
    assert now == before
    assert regated["mlflow"]["adapters"] == first["mlflow"]["adapters"]
    assert (regated["promotion"]["decision"], regated["mlflow"]["ensemble_changed"]) == ("unchanged", False)


def test_new_rows_retrain_one_group_and_are_promoted(history: History, first: Summary, grown: Summary) -> None:
    assert history.fresh(grown, "features") == {"features/film"}
    assert history.fresh(grown, "adapter") == {"adapter/group-0"}
    assert grown["groups"] == GROUPS and grown["artifacts"]["start"] == first["artifacts"]["start"]
    assert grown["promotion"]["decision"] == "promoted", grown["promotion"]["reason"]
    numbers = grown["promotion"]["numbers"]
    assert numbers["baseline"] == "champion" and numbers["by_dataset"]["film"]["difference"] > 0
    tags = history.client.get_model_version("small", "2").tags
    assert (tags["gate.decision"], tags["gate.against"]) == ("promoted", "1")
    assert json.loads(tags["gate.numbers"]) == numbers


def test_new_test_rows_decide_nothing_and_are_told_apart(grown: Summary) -> None:
    film = grown["against_champion"]["test_rows"]["film"]
    assert (film["frozen"], film["new"], film["gone"], film["relabelled"]) == (20, NEW_TEST_ROWS, 0, 0)
    assert 0 <= film["on_new"]["low"] <= film["on_new"]["value"] <= film["on_new"]["high"] <= 1
    assert grown["datasets"][0]["rows"]["test"] == 20 + NEW_TEST_ROWS


def test_one_dataset_costs_its_groups_share_and_little_more(history: History, first: Summary, grown: Summary) -> None:
    full, spent = history.flops(first), history.flops(grown)
    trained = {record["part"]: record["flops"] for record in history.records(first) if record["step"] == "train"}
    share = trained["group-0"] / full["train"]
    assert sum(spent.values()) <= share * full["train"] + 0.1 * sum(full.values()), (full, spent)
    assert spent["warm_start"] == 0
    before, now = (summary["cost"]["training_flops"]["extract"] for summary in (first, grown))
    assert now == pytest.approx(before, rel=0.1)  # of as many rows as before, though few of them were taken anew
    assert 0 < spent["extract"] < 0.5 * now


def test_drift_is_measured_since_the_champion_and_warns(history: History, grown: Summary, poisoned: Summary) -> None:
    assert grown["drift"]["champion"] == "1" and grown["drift"]["warnings"] == {}
    moved = poisoned["drift"]
    assert moved["champion"] == "2" and set(moved["by_dataset"]) == set(LABELS)
    assert list(moved["warnings"]) == ["food"]
    assert moved["by_dataset"]["food"]["features"] > 0.2 and moved["by_dataset"]["food"]["labels"] == 0
    for name in ("film", "mirror", "reverse"):
        assert moved["by_dataset"][name] == {"features": 0, "margin": 0, "labels": 0}
    metrics = history.client.get_run(poisoned["mlflow"]["run_id"]).data.metrics
    assert metrics["drift.food.features"] == moved["by_dataset"]["food"]["features"]
    assert metrics["drift.film.labels"] == 0


def test_the_gate_refuses_poison(history: History, grown: Summary, poisoned: Summary) -> None:
    promotion = poisoned["promotion"]
    assert promotion["decision"] == "refused" and "food loses" in promotion["reason"]
    assert promotion["numbers"]["by_dataset"]["food"]["difference"] < -0.15
    assert poisoned["mlflow"]["ensemble_version"] == "3"
    assert poisoned["against_champion"]["test_rows"]["food"]["frozen"] == 20


def test_a_person_hears_of_the_drift_and_of_the_refusal(history: History, poisoned: Summary) -> None:
    drift, refusal = history.listener.received
    assert (drift["event"], refusal["event"]) == ("drift", "promotion_refused")
    assert drift["details"] == {key: poisoned["drift"][key] for key in ("by_dataset", "warnings")}
    assert refusal["details"]["version"] == "3" and refusal["run_name"] == poisoned["run_id"]
    assert refusal["details"]["numbers"] == poisoned["promotion"]["numbers"]


def test_rollback_gives_the_alias_back_and_the_history_tells_it_all(history: History, rolled_back: str) -> None:
    assert rolled_back == "version 1 of small is the champion instead of version 2\n"
    assert history.champion() == "1"
    told = json.loads(history.cli("history", "--json"))
    assert [(one["version"], one["decision"]) for one in told["versions"]] == [
        ("1", "promoted"),
        ("2", "promoted"),
        ("3", "refused"),
    ]
    assert told["versions"][1]["changed"]["changed"] == ["film"]
    assert told["versions"][1]["changed"]["trained"] == ["group-0"]
    assert told["versions"][1]["rolled_back"] == "complaints about film"
    assert [(move["kind"], move["version"]) for move in told["moves"]] == [
        ("promoted", "1"),
        ("promoted", "2"),
        ("rolled_back", "1"),
    ]
    table = history.cli("history")
    assert "rolled back to version 1 instead of 2: complaints about film" in table
    assert "~ film; trained group-0" in " ".join(table.split())
    assert "version 3 was not promoted: against champion version 2" in table


def test_what_was_rolled_back_stays_out_until_a_person_brings_it_back(history: History, rolled_back: str) -> None:
    said = history.cli("promote", "2", "-m", "film was not to blame")
    assert said == "version 2 of small is the champion instead of version 1\n"
    assert history.champion() == "2"
