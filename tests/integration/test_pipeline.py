"""The whole pipeline against an MLflow server that proxies artifacts to a real S3, with its own store there too.

By default on the small project of the end-to-end test. ``pytest -m demo tests/integration`` does the same to the demo.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from typer.testing import CliRunner, Result

from components import tracking
from components.artifacts import file_digest, load
from components.config import RunConfig
from components.config_file import read_config
from components.object_store import ObjectStore, open_store
from components.registry.register import champion, fetch
from pipelines.cli import app
from pipelines.commands.running import _write_demo
from pipelines.local import run_local
from tests.e2e.project import write_project
from tests.integration.servers import S3Server, mlflow_server

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Done:
    """A run that has ended: its config, its summary, its store, and where its files are on this machine."""

    config_file: Path
    root: Path
    config: RunConfig
    summary: dict[str, Any]
    store: ObjectStore

    @property
    def client(self) -> tracking.MlflowClient:
        return tracking.connect(str(self.config.tracking.uri))

    def command(self, name: str, *options: str) -> Result:
        where = ["-c", str(self.config_file), "--root", str(self.root)]
        return CliRunner().invoke(app, [name, *where, *options], catch_exceptions=False)


@pytest.fixture(scope="module", params=["small", pytest.param("demo", marks=pytest.mark.demo)])
def done(request: pytest.FixtureRequest, swift: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    write: Callable[[Path], Path] = {"small": write_project, "demo": _write_demo}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    config_file = write(folder / "project")
    with mlflow_server(swift, folder) as address, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in swift.environment.items():
            patch.setenv(name, value)
        patch.setenv("LORALOOM_PARALLELISM", "2")
        servers = {"tracking": {"uri": address}, "storage": swift.storage(request.param).model_dump()}
        config_file.write_text(f"{config_file.read_text()}\n{yaml.safe_dump(servers)}")
        config = read_config(config_file)
        summary = run_local(config, folder / "root")
        yield Done(config_file, folder / "root", config, summary, open_store(config.storage, Path()))


def test_the_run_ends_well_and_the_server_has_it(done: Done) -> None:
    run = done.client.get_run(done.summary["mlflow"]["run_id"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", done.summary["run_id"])
    assert str(run.info.artifact_uri).startswith("mlflow-artifacts:/")
    assert run.data.metrics["average.ensemble"] == done.summary["average"]["ensemble"]["metric"]["value"]
    assert done.summary["promotion"]["decision"] == "promoted"
    serving = champion(done.client, done.config.name)
    assert serving is not None
    assert serving.version == done.summary["mlflow"]["ensemble_version"] == "1"


def test_every_artifact_is_in_the_bucket_and_none_on_this_machine(done: Done) -> None:
    for entry in done.summary["artifacts"].values():
        assert load(done.store, entry["key"]).digest == entry["digest"]
    assert not (done.root / "store").exists()


def test_adapters_lie_in_the_bucket_as_the_server_logged_them(done: Done, swift: S3Server) -> None:
    """Read past MLflow: what it was given is there, byte for byte."""
    client = swift.client()
    for name, where in done.summary["mlflow"]["adapters"].items():
        kind = "adapter" if f"adapter/{name}" in done.summary["artifacts"] else "booster"
        made = load(done.store, done.summary["artifacts"][f"{kind}/{name}"]["key"])
        prefix = f"mlflow/{done.summary['mlflow']['experiment_id']}/{where['run_id']}/artifacts/{kind}"
        body = client.get_object(Bucket="bucket", Key=f"{prefix}/{WEIGHTS}")["Body"].read()
        assert body == (made.folder / WEIGHTS).read_bytes()


def test_the_champion_can_be_fetched_through_the_server(done: Done, tmp_path: Path) -> None:
    folder = fetch(done.client, done.config.name, "1", tmp_path)
    described = json.loads((folder / "ensemble.json").read_text())
    *groups, multitask = described["members"]
    assert [group["datasets"] for group in groups] == done.summary["groups"]
    assert sorted(multitask["datasets"]) == sorted(dataset["name"] for dataset in done.summary["datasets"])
    for member in described["members"]:
        made = load(done.store, done.summary["artifacts"][f"adapter/{member['name']}"]["key"])
        assert file_digest(folder / member["folder"] / WEIGHTS) == file_digest(made.folder / WEIGHTS)


def test_the_report_is_shared_by_a_link(done: Done) -> None:
    shown = done.command("report", "--share", "1")
    assert shown.exit_code == 0, shown.stderr
    with urlopen(shown.stdout.splitlines()[-1]) as page:
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.read() == (done.root / "report.html").read_bytes()


def test_nothing_is_garbage_after_a_run(done: Done) -> None:
    shown = done.command("gc", "--delete")
    assert (shown.exit_code, shown.stdout) == (0, "deleted: 0 folders, 0 bytes\n")
    assert done.command("lineage").exit_code == 0


def test_a_second_run_makes_and_registers_nothing(done: Done) -> None:
    before = set(done.store.keys(""))
    again = run_local(done.config, done.root)
    assert again["unchanged"]["version"] == "1"
    assert {key.split("/")[0] for key in set(done.store.keys("")) - before} == {"runs"}
