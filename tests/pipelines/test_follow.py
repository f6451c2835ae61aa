"""What is shown of a run on the cluster while it goes on, and what it says when it ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from components.cluster_config import ClusterConfig
from components.errors import UserError
from components.events import as_line
from pipelines import follow as following
from pipelines.cli import app
from pipelines.commands.cluster import follow_to_the_end
from pipelines.commands.common import reported
from pipelines.follow import follow
from pipelines.invocation import typed
from pipelines.kfp_api import Api, connect
from pipelines.progress import Event
from tests.pipelines.kfp_stub import KfpStub, Thing, kfp_stub
from tests.pipelines.test_submit import settings


class Lines:
    """A view that keeps what it shows."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, event: Event) -> None:
        self.lines.append(as_line(event))


@pytest.fixture(scope="module")
def server() -> Iterator[KfpStub]:
    with kfp_stub() as stub:
        yield stub


@pytest.fixture
def stub(server: KfpStub, monkeypatch: pytest.MonkeyPatch) -> KfpStub:
    monkeypatch.delenv("KF_PIPELINES_UI_ENDPOINT", raising=False)
    monkeypatch.setattr(following, "sleep", lambda seconds: None)
    server.runs[:] = [run("RUNNING")]
    server.experiments[:] = [{"experiment_id": "e", "display_name": "desk_2"}]
    return server


@pytest.fixture
def api(stub: KfpStub) -> Api:
    return connect(ClusterConfig(endpoint=stub.url))


def run(state: str, *tasks: Thing) -> Thing:
    """A run in this state, with these tasks and the ones that KFP adds itself."""
    own = [task(name, "RUNNING", 0) for name in ("root", "root-driver", "exit-handler-1", "prepare-driver", "executor")]
    return {
        "run_id": "r1",
        "display_name": "desk_2-1",
        "experiment_id": "e",
        "state": state,
        "created_at": "2026-01-04T03:00:00Z",
        "run_details": {"task_details": [*own, *tasks]},
    }


def task(name: str, state: str, minute: int, took: int = 0, error: str = "") -> Thing:
    """A task that began at this minute of the run."""
    times = {"create_time": f"2026-01-04T03:{minute:02}:00Z", "start_time": f"2026-01-04T03:{minute:02}:00Z"}
    if took:
        times["end_time"] = f"2026-01-04T03:{minute:02}:{took:02}Z"
    failed = {"error": {"code": 13, "message": error}} if error else {}
    return {"task_id": f"{name}-{minute}", "display_name": name, "state": state, **times, **failed}


def test_steps_are_shown_as_they_go_until_the_run_ends(
    stub: KfpStub, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [
        run("RUNNING", task("open-run", "SUCCEEDED", 0, 5), task("prepare", "RUNNING", 1)),
        run("RUNNING", task("open-run", "SUCCEEDED", 0, 5), task("prepare", "SUCCEEDED", 1, 30)),
        run(
            "SUCCEEDED",
            task("open-run", "SUCCEEDED", 0, 5),
            task("prepare", "SUCCEEDED", 1, 30),
            task("train", "SUCCEEDED", 3, 40),
            task("train", "SKIPPED", 2, 20),
        ),
    ]

    def go_on(seconds: float) -> None:
        stub.runs[:] = [looks.pop(0)]

    monkeypatch.setattr(following, "sleep", go_on)
    view = Lines()
    ended = follow(api, "r1", view, "look")
    assert ended.state == "SUCCEEDED"
    assert view.lines == [
        "open_run: started",
        "open_run: finished in 5.0 s",
        "prepare: started",
        "prepare: finished in 30.0 s",
        "train #1: started",
        "train #1: reused",
        "train #2: started",
        "train #2: finished in 40.0 s",
    ]


def test_a_run_that_failed_names_its_steps_and_their_logs(stub: KfpStub, api: Api) -> None:
    failed = task("train", "FAILED", 2, 20, error="main: Error (exit code 2)")
    stub.runs[:] = [run("FAILED", task("prepare", "SUCCEEDED", 1, 30), failed, task("close-run", "SUCCEEDED", 3, 4))]
    view = Lines()
    with pytest.raises(UserError, match="the run desk_2-1 failed") as caught:
        follow(api, "r1", view, "look")
    assert caught.value.problems == ("train #1: main: Error (exit code 2)",)
    assert f"{stub.url}/#/runs/details/r1" in caught.value.remedy
    assert "train #1: failed: main: Error (exit code 2)" in view.lines


def test_a_canceled_run_ends_the_wait(stub: KfpStub, api: Api) -> None:
    stub.runs[:] = [run("CANCELED", task("train", "CANCELED", 2, 20))]
    with pytest.raises(UserError, match="was canceled"):
        follow(api, "r1", Lines(), "look")


def test_an_api_that_is_away_for_a_while_is_waited_for(stub: KfpStub, api: Api) -> None:
    stub.runs[:] = [run("SUCCEEDED")]
    stub.fail("GET", "runs/r1", "drop", times=3)  # one look with its two retries
    assert follow(api, "r1", Lines(), "look").state == "SUCCEEDED"


def test_an_api_that_stays_away_is_told_and_the_run_goes_on(
    stub: KfpStub, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOST_LOOKS", 2)
    stub.fail("GET", "runs/r1", "drop", times=6)
    with pytest.raises(UserError, match="lost sight of the run r1, which goes on") as caught:
        follow(api, "r1", Lines(), "look")
    assert caught.value.remedy == "look"


def test_who_stops_looking_is_told_that_the_run_goes_on(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "sleep", interrupted)
    with pytest.raises(BaseException) as caught, reported(debug=False):
        follow_to_the_end(api, api.client.get_run("r1"), True, Path("my.yaml"), no_wait=False)
    assert getattr(caught.value, "exit_code", None) == 130
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "stopped showing desk_2-1, which goes on",
        f"-> {typed('status', 'r1', '-c', 'my.yaml')}",
    ]


def test_a_run_that_is_not_there(stub: KfpStub, api: Api) -> None:
    with pytest.raises(UserError, match=r"did not show the run r2 \(404\): r2 not found\n-> check the id"):
        follow(api, "r2", Lines(), "look")


def status(stub: KfpStub, tmp_path: Path, *words: str) -> Any:
    config_file = tmp_path / "config.yaml"
    config_file.write_text(yaml.safe_dump(settings(stub, tmp_path)))
    return CliRunner().invoke(app, ["status", *words, "-c", str(config_file)])


def test_status_lists_the_latest_runs(stub: KfpStub, tmp_path: Path) -> None:
    uuid = "31ad70e4-f931-4d53-aff2-07334997b80e"
    stub.runs.append(run("FAILED") | {"run_id": uuid, "display_name": "desk_2-20260104-030000"})
    stub.runs.append(run("FAILED") | {"run_id": "r3", "experiment_id": "another"})
    lines = status(stub, tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [uuid, "r1"]
    assert "failed" in lines[1] and "running" in lines[2]


def test_status_shows_the_steps_of_one(stub: KfpStub, tmp_path: Path) -> None:
    failed = task("train", "FAILED", 2, 20, error="[out] of memory")
    stub.runs[:] = [run("FAILED", task("prepare", "SUCCEEDED", 1, 30), failed)]
    lines = status(stub, tmp_path, "r1").stdout.splitlines()
    assert lines[:2] == ["desk_2-1: failed", f"{stub.url}/#/runs/details/r1"]
    assert [line.split() for line in lines[3:]] == [
        ["prepare", "succeeded", "30"],
        ["train", "#1", "failed", "20", "[out]", "of", "memory"],
    ]


def test_status_without_any_run_says_how_to_make_one(stub: KfpStub, tmp_path: Path) -> None:
    stub.runs.clear()
    shown = status(stub, tmp_path)
    assert (shown.exit_code, shown.stderr.splitlines()[0]) == (2, "error: no run of desk_2 yet")


def test_status_makes_no_experiment_where_there_is_none(stub: KfpStub, tmp_path: Path) -> None:
    stub.experiments.clear()
    shown = status(stub, tmp_path)
    assert (shown.exit_code, shown.stderr.splitlines()[0]) == (2, "error: no run of desk_2 yet")
    assert stub.experiments == []
