"""MLflow away at the start, for a while, for good; its database locked; its artifacts refused. No adapter is lost."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components import tracking
from components.artifacts import load
from components.config_file import read_config, resolved
from components.config_transport import pack
from components.errors import UserError
from components.object_store import LocalStore
from components.registry import close_run, open_run
from pipelines import local
from pipelines.cli import app
from pipelines.invocation import typed
from tests.faults.conftest import Finished, digests
from tests.faults.kill import AGAIN, Run, run_once
from tests.integration.servers import ended, wait_until_healthy

IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}  # of the client itself; by default its patience is minutes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_away_at_the_start_is_told_at_once(finished: Finished, tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    config = resolved(read_config(finished.config), tmp_path)
    config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": uri})})
    with pytest.raises(UserError, match=f"the MLflow store at {uri} does not answer") as caught:
        open_run.run(pack(config), "run")
    assert caught.value.remedy.startswith("check tracking.uri (http(s)://host:port), that the server runs")


def test_a_locked_database_is_told_and_waits_for_the_next_try(finished: Finished, tmp_path: Path) -> None:
    config = pack(resolved(read_config(finished.config), tmp_path))
    run_id = yaml.safe_load(open_run.run(config, "run"))["run_id"]
    holder = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(UserError, match="MLflow's database is locked by another process") as caught:
            close_run.run(config, "run", "promote")
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert caught.value.remedy.endswith("and the same command goes on from there")
    close_run.run(config, "run", "promote")
    assert tracking.connect(f"sqlite:///{tmp_path}/mlflow.db").get_run(run_id).info.status == "FAILED"


KILLED = """
import os, signal, sys
import mlflow.store.db.utils
from components import tracking
mlflow.store.db.utils._upgrade_db = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
tracking.connect(sys.argv[1])
"""


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path: Path) -> None:
    """Killed with its tables there, and their version not."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert subprocess.run([sys.executable, "-c", KILLED, uri], check=False).returncode == -9
    assert tracking.connect(uri).search_experiments(max_results=1)


def test_the_run_of_a_command_that_was_killed_is_ended_by_the_next(finished: Finished, tmp_path: Path) -> None:
    config = resolved(read_config(finished.config), tmp_path)
    run_id = yaml.safe_load(open_run.run(pack(config), "small-before"))["run_id"]
    (tmp_path / local.AT_WORK).write_text("small-before")
    local._end_abandoned(config, tmp_path)
    assert tracking.connect(str(config.tracking.uri)).get_run(run_id).info.status == "FAILED"


def test_there_is_nothing_to_resume_before_a_run(finished: Finished, tmp_path: Path) -> None:
    options = ["-c", str(finished.config), "--root", str(tmp_path)]
    done = CliRunner().invoke(app, ["resume", *options])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: no run has begun under {tmp_path}")
    assert f"-> {typed('run', *options)}" in done.stderr


class Server:
    """``mlflow server`` on a port of its own, with its files in a folder; may be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.artifacts = folder / "artifacts"
        self._running: list[Callable[[], object]] = []

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.artifacts)]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = self.folder / "server.log"
        with log.open("ab") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **quiet}, cwd=self.folder)
        context = ended(process)
        context.__enter__()
        self._running.append(lambda: context.__exit__(None, None, None))
        wait_until_healthy(self.address, process, log)

    def stop(self) -> None:
        while self._running:
            self._running.pop()()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    running = Server(folder)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def tracked(finished: Finished, server: Server) -> Path:
    """The small project, with its runs on the server."""
    settings = yaml.safe_load(finished.config.read_text()) | {"tracking": {"uri": server.address}}
    config = finished.config.with_name(f"tracked-{server.port}.yaml")
    config.write_text(yaml.safe_dump(settings))
    return config


def wait_for(root: Path, step: str, run: Run) -> None:
    """Return when ``step`` has begun."""
    events = root / "events.jsonl"
    while run.child.is_alive():
        if events.is_file() and f'"{step}"' in events.read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"the run ended before {step}: {run.wait().log}")


def adapters(root: Path) -> list[str]:
    """Keys of the whole adapters in the store."""
    store = LocalStore(root / "store")
    keys = [key.removesuffix("/manifest.json") for key in store.keys("adapter/") if key.endswith("/manifest.json")]
    return [load(store, key).key for key in keys]


@pytest.mark.faults
def test_a_server_that_is_away_for_half_a_minute_is_waited_for(
    finished: Finished, tracked: Path, server: Server, tmp_path: Path
) -> None:
    run = Run(tracked, tmp_path / "root")
    wait_for(tmp_path / "root", "train", run)
    server.stop()
    time.sleep(30)
    server.start()
    done = run.wait()
    assert done.exit_code == 0, done.log
    assert digests(done.summary) == finished.digests


@pytest.mark.faults
@pytest.mark.parametrize("how", ["stopped", "no room for artifacts"])
def test_adapters_outlive_a_server_that_fails_for_good_and_are_registered_by_the_next_run(
    how: str, finished: Finished, tracked: Path, server: Server, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    run = Run(tracked, root, environment=IMPATIENT)
    wait_for(root, "train", run)
    if how == "stopped":
        server.stop()
    else:
        server.artifacts.rename(tmp_path / "artifacts-before")
        server.artifacts.write_text("a file where a folder should be")
    failed = run.wait()
    assert failed.exit_code == 1
    assert "does not answer" in failed.log or "did not do what was asked of it" in failed.log
    made = adapters(root)
    assert made, "the adapter that was trained meanwhile is lost"
    if how == "stopped":
        server.start()
    else:
        server.artifacts.unlink()
        (tmp_path / "artifacts-before").rename(server.artifacts)
    done = run_once(tracked, root, None)
    assert done.exit_code == 0, done.log
    assert digests(done.summary) == finished.digests
    assert not (root / AGAIN).exists()
    client = tracking.connect(server.address)
    registered = {version.tags["key"] for version in client.search_model_versions("name = 'small-adapters'")}
    assert set(made) <= registered


@pytest.mark.faults
def test_the_command_resumes_a_run_that_was_killed_as_a_whole(finished: Finished, tmp_path: Path) -> None:
    """The real thing: `loraloom run`, killed with all its steps, then `loraloom resume`."""
    root = tmp_path / "root"
    options = ["-c", str(finished.config), "--root", str(root)]
    command = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "run", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not any((root / "store").glob("start/*/*/manifest.json")):
        assert command.poll() is None, "it ended before it could be killed"
        time.sleep(0.2)
    _kill_tree(command.pid)
    command.wait()
    done = CliRunner().invoke(app, ["resume", *options])
    assert done.exit_code == 0, done.stderr
    client = tracking.connect(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    statuses = [run.info.status for run in client.search_runs([experiment.experiment_id], max_results=1000)]
    assert "RUNNING" not in statuses
    assert "FAILED" in statuses
    assert [int(version.version) for version in client.search_model_versions("name = 'small'")] == [1]


def _kill_tree(pid: int) -> None:
    """Kill a process and everything it has started, sessions of their own included."""
    import psutil

    everyone = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in everyone:
        process.kill()
    psutil.wait_procs(everyone)
