"""Datasets come and go, and a person promotes: what is planned anew, what is kept, who hears of it."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from components.object_store import LocalStore
from components.step import read_records
from pipelines.cli import app
from tests.e2e.in_process import run_steps, told_to_a_listener
from tests.e2e.project import PARTS, sentences, settings, write_rows
from tests.listener import Listener
from tests.tiny_ensemble import write_base

# Name -> whose labels it has: all but `mirror` answer alike.
DATASETS = {"film": "film", "food": "food", "mirror": "mirror", "play": "food"}
Summary = dict[str, Any]


class History:
    """The project, the webhook's listener, and the runs so far."""

    def __init__(self, folder: Path, listener: Listener) -> None:
        self.config, self.root, self.listener = folder / "config.yaml", folder / "run", listener
        write_base(folder / "model")
        for number, (name, kind) in enumerate(DATASETS.items()):
            (folder / name).mkdir()
            rows = iter(list(sentences(kind, 100 * number)))
            for part, count in PARTS.items():
                write_rows(folder / name / f"{part}.jsonl", itertools.islice(rows, count))

    def run(self, *names: str) -> Summary:
        """A run with these datasets."""
        config = settings()
        config["datasets"] = [{"name": name, "path": name, "template": "{text}\nMood:\n"} for name in names]
        config["gradients"]["samples_per_dataset"] = 12
        # theta* has to have learnt what most of them answer, or a dataset that is new makes another one.
        config["warm_start"] = {"epochs": 3, "samples_per_dataset": 40, "learning_rate": 0.01}
        config["ensemble"]["baselines"] = []
        config["registry"]["promote"] = "manual"
        self.config.write_text(yaml.safe_dump(config))
        return run_steps(self.config, self.root)

    def promote(self) -> None:
        options = ["-c", str(self.config), "--root", str(self.root)]
        done = CliRunner().invoke(app, ["promote", "-m", "looks good", *options])
        assert done.exit_code == 0, done.output

    def fresh(self, summary: Summary) -> set[str]:
        """Labels of everything that the run made anew."""
        records = read_records(LocalStore(self.root / "store"), summary["run_id"])
        made = {label: entry for record in records for label, entry in record["artifacts"].items()}
        return {label for label, entry in made.items() if entry["fresh"]}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with told_to_a_listener(tmp_path_factory.mktemp("events") / "events.jsonl") as listener:
        yield History(tmp_path_factory.mktemp("project"), listener)


@pytest.fixture(scope="module")
def first(history: History) -> Summary:
    summary = history.run("film", "food", "mirror")
    history.promote()
    return summary


@pytest.fixture(scope="module")
def added(history: History, first: Summary) -> Summary:
    summary = history.run("film", "food", "mirror", "play")
    history.promote()
    return summary


@pytest.fixture(scope="module")
def removed(history: History, added: Summary) -> Summary:
    return history.run("film", "mirror", "play")


def test_a_version_that_waits_for_a_person_is_told_to_the_webhook(
    history: History, first: Summary, added: Summary, removed: Summary
) -> None:
    assert [told["event"] for told in history.listener.received] == ["promotion_waits"] * 3
    for told, summary, version in zip(history.listener.received, (first, added, removed), "123", strict=True):
        assert summary["promotion"]["decision"] == "manual"
        assert (told["run_name"], told["details"]["version"]) == (summary["run_id"], version)
        assert told["details"]["reason"] == summary["promotion"]["reason"]


def test_a_dataset_that_is_added_joins_its_like_and_the_others_adapter_stays(
    history: History, first: Summary, added: Summary
) -> None:
    assert first["groups"] == [["film", "food"], ["mirror"]]
    assert added["groups"] == [["film", "food", "play"], ["mirror"]]
    fresh = history.fresh(added)
    assert {label for label in fresh if label.startswith("features/")} == {"features/play"}
    assert {label for label in fresh if label.startswith("adapter/")} == {"adapter/group-0"}
    assert {"affinity", "partition"} <= fresh and "start" not in fresh
    assert added["artifacts"]["adapter/group-1"] == first["artifacts"]["adapter/group-1"]


def test_a_dataset_that_is_removed_leaves_its_group_and_costs_no_features(
    history: History, added: Summary, removed: Summary
) -> None:
    assert removed["groups"] == [["film", "play"], ["mirror"]]
    fresh = history.fresh(removed)
    assert not [label for label in fresh if label.startswith("features/")]
    assert {label for label in fresh if label.startswith("adapter/")} == {"adapter/group-0"}
    assert {"affinity", "partition"} <= fresh and "start" not in fresh
    assert removed["artifacts"]["adapter/group-1"] == added["artifacts"]["adapter/group-1"]
