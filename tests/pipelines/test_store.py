"""`loraloom gc` and `loraloom report --share` as a user meets them."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components import model_versions, tracking
from components.object_store import LocalStore
from components.step import write_record
from pipelines.cli import app
from pipelines.commands.store import share_report
from pipelines.invocation import typed
from pipelines.local import locked

DAY = 86400


class Project:
    """A config, and a store in which four feature sets are forty days old and a fifth is of today."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.config, self.root = folder / "config.yaml", folder / "root"
        self.config.write_text("name: desk\nmodel: {id: x}\ndatasets: [{name: a, path: a.jsonl}]\n")
        self.store = LocalStore(self.root / "store")
        for name in "abcde":
            self.store.write(f"features/{name}/manifest.json", b"{}")
            self.store.write(f"features/{name}/0123/train.safetensors", bytes(1_500_000))
        self.record("young", "b")
        self.record("registered", "c")
        for key in self.store.keys(""):
            if not key.startswith(("features/e", "runs/young")):
                os.utime(self.store.root / key, (time.time() - 40 * DAY,) * 2)
        shutil.copyfile(database, self.root / "mlflow.db")
        self.register("registered")

    def record(self, run_name: str, name: str) -> None:
        made = {f"features/{name}": {"key": f"features/{name}", "digest": "d", "fresh": True}}
        write_record(self.store, run_name, {"step": "extract", "part": "", "artifacts": made})

    def register(self, run_name: str) -> None:
        client = tracking.connect(f"sqlite:///{self.root}/mlflow.db")
        run_id = tracking.open_run(client, "desk", run_name, {"loraloom.run_name": run_name})
        model_versions.create_version(client, "desk", "file:///x", run_id, {"ensemble_digest": run_name})

    def features(self) -> str:
        return "".join(sorted({key.split("/")[1] for key in self.store.keys("features/")}))

    def command(self, *arguments: str) -> Result:
        options = ["-c", str(self.config), "--root", str(self.root)]
        return CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store; making its tables takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    tracking.connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Project:
    return Project(tmp_path, database)


def test_gc_shows_what_could_go_and_deletes_it_when_told_to(project: Project) -> None:
    shown = project.command("gc")
    assert shown.exit_code == 0
    header, *rows, total, hint = shown.stdout.splitlines()
    assert header.split() == ["what", "where", "size", "age,", "days"]
    assert [row.split() for row in rows] == [
        ["feature", "set", f"features/{name}", "1.5", "MB", "40"] for name in ("a", "d")
    ]
    assert total == "to delete: 2 folders, 3.0 MB"
    assert hint == f"-> {typed('gc', '-c', project.config, '--root', project.root, '--days', 30, '--delete')}"
    assert project.features() == "abcde"
    assert "deleted: 2 folders, 3.0 MB" in project.command("gc", "--delete").stdout
    assert project.features() == "bce"
    assert project.command("gc", "--delete").stdout == "deleted: 0 folders, 0 bytes\n"


def test_days_are_counted(project: Project) -> None:
    assert "to delete: 0 folders" in project.command("gc", "--days", "41").stdout
    assert "to delete: 2 folders" in project.command("gc", "--days", "39").stdout
    assert project.command("gc", "--days", "0").exit_code == 2


def test_a_version_whose_run_left_no_records_is_named(project: Project) -> None:
    project.register("elsewhere")
    assert project.command("gc").stdout.startswith("desk version 2: no records of its run in this store")


def test_gc_deletes_nothing_while_a_run_is_at_work(project: Project) -> None:
    with locked(project.root):
        assert project.command("gc").exit_code == 0
        refused = project.command("gc", "--delete")
    assert (refused.exit_code, "is in use by another run" in refused.stderr) == (2, True)
    assert project.features() == "abcde"


def test_a_report_in_a_folder_cannot_be_shared(project: Project, tmp_path: Path) -> None:
    (project.root / "summary.json").write_text(json.dumps({"name": "desk", "run_id": "desk-1"}))
    refused = project.command("report", "--share", "24")
    assert refused.exit_code == 2
    assert "is a folder, which gives no links" in refused.stderr
    assert not project.store.exists("runs/desk-1/report.html")
    assert project.command("report", "--share", "169").exit_code == 2  # S3 gives no link for longer than a week


def test_a_report_is_shared_from_beside_the_runs_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, page = LocalStore(tmp_path / "store"), tmp_path / "report.html"
    page.write_text("<html>")
    monkeypatch.setattr(store, "link", lambda key, seconds, kind: f"https://{key}?{seconds}&{kind}")
    link = share_report(store, "desk-1", page, hours=2)
    assert link == "https://runs/desk-1/report.html?7200&text/html; charset=utf-8"
    assert store.read("runs/desk-1/report.html") == b"<html>"
