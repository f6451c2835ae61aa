"""One small project, and one run of it that nobody disturbs, with secrets in its environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.project import settings, write_project
from tests.faults.harness import Sound
from tests.faults.kill import run_once
from tests.integration.conftest import credentials, swift  # noqa: F401 - the real S3 server

Digests = dict[str, str]
# What a run finds in its environment and must leave nowhere.
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-7f3a",
    "AWS_SESSION_TOKEN": "planted-aws-session-91bd",
    "HF_TOKEN": "hf_plantedHubToken5521",
    "MLFLOW_TRACKING_USERNAME": "planted-mlflow-user-0c11",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password-d4d4",
    "LORALOOM_WEBHOOK": "http://127.0.0.1:9/hooks/planted-webhook-3e9c",
}


@dataclass(frozen=True)
class Finished:
    """A run that ended well: its config, everything it left, its summary."""

    config: Path
    root: Path
    summary: dict[str, Any]

    @property
    def digests(self) -> Digests:
        """What it made, by label."""
        return digests(self.summary)


def digests(summary: dict[str, Any]) -> Digests:
    """What a run made, by label; left out is what tells of the run itself: costs, ids, times."""
    return {label: made["digest"] for label, made in summary["artifacts"].items() if label != "evaluation"}


def write_small(folder: Path) -> Path:
    """Two datasets that contradict each other, so that there are two groups; little of everything."""
    config_file = write_project(folder)
    config = settings()
    config["datasets"] = [entry for entry in config["datasets"] if entry["name"] in ("film", "mirror")]
    config["training"]["epochs"] = 1
    config["gradients"]["samples_per_dataset"] = 16
    config["alerts"] = {"webhook_env": "LORALOOM_WEBHOOK"}
    config_file.write_text(yaml.safe_dump(config))
    return config_file


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    project = Sound(tmp_path_factory.mktemp("sound"))
    project.write()
    return project


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("finished")
    done = run_once(config, root, None, environment=SECRETS)
    assert done.exit_code == 0, done.log
    return Finished(config, root, done.summary)
