"""Fifty retrainings in a row while the datasets change at random: nothing grows, leaks, or stays behind.

``LORALOOM_SOAK_ROUNDS`` sets another number of rounds.
"""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from components import tracking
from components.artifacts import find
from components.object_store import LocalStore
from components.registry.aliases import versions
from components.registry.kept_runs import runs_of_versions
from components.step import read_records
from pipelines.cli import app
from tests.e2e.project import sentences, write_rows
from tests.faults.conftest import write_small
from tests.faults.kill import AGAIN, run_once
from tests.faults.test_killed import check_store

ROUNDS = int(os.environ.get("LORALOOM_SOAK_ROUNDS", "50"))
NAMES = ("film", "mirror")


class Project:
    """A small project whose datasets change."""

    def __init__(self, folder: Path) -> None:
        self.config, self.root = write_small(folder), folder / "root"
        self.random, self.rounds = random.Random(0), 0
        self.temporary = folder / "temporary"
        self.temporary.mkdir()

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.root / "store")

    @property
    def client(self) -> tracking.MlflowClient:
        return tracking.connect(f"sqlite:///{self.root}/mlflow.db")

    def change(self) -> str:
        """Change one dataset, or none; says how."""
        self.rounds += 1
        name = self.random.choice(NAMES)
        folder = self.config.parent / name
        how = self.random.choice(["nothing", "nothing", "more rows", "fewer rows", "a label", "the other way round"])
        train = folder / "train.jsonl"
        rows = [json.loads(line) for line in train.read_text().splitlines()]
        if how == "more rows":
            fresh = list(sentences(name, 20_000 + 100 * self.rounds))[: self.random.randint(1, 6)]
            write_rows(train, fresh)
        elif how == "fewer rows" and len(rows) > 30:
            train.write_text("".join(json.dumps(row) + "\n" for row in rows[2:]))
        elif how == "a label":
            row = self.random.choice(rows)
            row["label"] = {"good": "bad", "bad": "good"}[row["label"]]
            train.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif how == "the other way round":
            train.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
        return how

    def run(self) -> dict[str, Any]:
        done = run_once(self.config, self.root, None, environment={"TMPDIR": str(self.temporary)})
        assert done.exit_code == 0, done.log
        return done.summary

    def size(self) -> int:
        """Bytes of the store by what has to stay: everything but the runs' records."""
        return sum(entry.size for entry in self.store.entries("") if not entry.key.startswith("runs/"))


def check_registry(project: Project) -> None:
    """One champion, versions numbered from one on, and every adapter of each of them in the store."""
    found = versions(project.client, "small")
    assert [int(version.version) for version in found] == list(range(1, len(found) + 1))
    assert len({version.tags["ensemble_digest"] for version in found}) == len(found)
    assert sum("champion" in version.aliases for version in found) == 1
    assert sum("challenger" in version.aliases for version in found) == 1
    adapters = {v.tags["digest"]: v for v in project.client.search_model_versions("name = 'small-adapters'")}
    for version in found:
        for key, digest in version.tags.items():
            if key.startswith("adapter.group-") and key.endswith(".digest"):
                artifact = find(project.store, adapters[digest].tags["key"])
                assert artifact is not None
                assert artifact.digest == digest


@pytest.mark.faults
def test_many_retrainings_in_a_row(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run()
    outcomes = []
    processes = {process.pid for process in psutil.Process().children(recursive=True)}
    for _ in range(ROUNDS):
        before, how = project.size(), project.change()
        unseen = how in ("more rows", "fewer rows", "a label")
        summary = project.run()
        outcomes.append("unchanged" if "unchanged" in summary else summary["promotion"]["decision"])
        if not unseen:
            assert project.size() == before, f"{how}: the store grew although nothing changed"
    client = project.client
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=10_000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert "unchanged" in outcomes
    check_registry(project)
    check_store(project.root)
    assert not (project.root / AGAIN).exists()
    assert list(project.store.keys("checkpoints/")) == []
    assert [path.name for path in (project.root / "store").rglob("*.part")] == []
    assert [path.name for path in project.temporary.iterdir() if path.name.startswith("loraloom-")] == []
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= processes
    check_garbage(project)


def check_garbage(project: Project) -> None:
    """Forty days later `gc` leaves the features of versions and no others, and a run finds all it needs."""
    then = time.time() - 40 * 86_400
    for path in (project.root / "store").rglob("*"):
        os.utime(path, (then, then))
    cleaned = CliRunner().invoke(app, ["gc", "-c", str(project.config), "--root", str(project.root), "--delete"])
    assert cleaned.exit_code == 0, cleaned.stderr
    made = [
        artifact["key"]
        for run in runs_of_versions(project.client)
        for record in read_records(project.store, run)
        for artifact in record["artifacts"].values()
    ]
    left = {"/".join(key.split("/")[:2]) for key in project.store.keys("features/")}
    assert left == {key for key in made if key.startswith("features/")}
    before = project.size()
    assert "unchanged" in project.run()
    assert project.size() == before
