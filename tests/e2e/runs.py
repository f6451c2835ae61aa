"""A project's runs as tests look at them: summaries, records, the store and MLflow."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from components import tracking
from components.artifacts import find
from components.config_file import read_config
from components.object_store import LocalStore
from components.step import read_records
from pipelines.local import run_local
from tests.e2e.project import write_project

Records = dict[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A run that has ended well: its summary, its records by (step, part), its raw log."""

    summary: dict[str, Any]
    records: Records
    log: str

    def fresh(self, kind: str) -> set[str]:
        """Labels of this kind that the run made anew."""
        made = {label: entry for record in self.records.values() for label, entry in record["artifacts"].items()}
        return {label for label, entry in made.items() if entry["fresh"] and label.split("/")[0] == kind}


class Project:
    """The project's folder, its store and MLflow."""

    def __init__(self, folder: Path) -> None:
        self.config_file, self.root = write_project(folder), folder / "run"

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.root / "store")

    @property
    def client(self) -> MlflowClient:
        return tracking.connect(f"sqlite:///{self.root}/mlflow.db")

    def run(self, **how: Any) -> Run:
        summary = run_local(read_config(self.config_file), self.root, **how)
        saved = json.loads(json.dumps(summary))
        if "unchanged" not in summary:  # a run that ends early leaves the files of the one before
            assert saved == json.loads((self.root / ("plan.json" if how else "summary.json")).read_text())
        log = (self.root / "logs" / f"{summary['run_id']}.log").read_text()
        return Run(saved, self.records(summary["run_id"]), log)

    def records(self, run_name: str) -> Records:
        return {(record["step"], record["part"]): record for record in read_records(self.store, run_name)}

    def facts(self, key: str) -> dict[str, Any]:
        artifact = find(self.store, key)
        assert artifact is not None
        return artifact.facts

    def versions(self) -> set[int]:
        return {int(version.version) for version in self.client.search_model_versions("name = 'small'")}

    def alias(self, alias: str) -> int:
        return int(self.client.get_model_version_by_alias("small", alias).version)
