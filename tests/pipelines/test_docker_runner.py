"""What needs no engine of the Docker runner; tests/docker tries the rest with one."""

import os
from pathlib import Path
from typing import Any

import pytest
from kfp import local
from kfp.local import docker_task_handler
from kfp.local.status import Status

from components.cluster_config import ImagesConfig
from components.config import RunConfig, StorageConfig, TrackingConfig
from components.errors import UserError
from pipelines.docker_runner import FILES, _environment, _read, _written, containers, run_container, runner


class Container:
    """A container that has failed already. As with a real one, what was removed has no status any more."""

    def __init__(self, how: dict[str, Any], status: int) -> None:
        self.how, self.status, self.removed = how, status, how.get("auto_remove", False)

    def logs(self, **how: Any) -> list[bytes]:
        assert how["follow"] is True
        return [b"Traceback: \xff\n"]

    def wait(self) -> dict[str, int]:
        assert not self.removed
        return {"StatusCode": self.status}

    def remove(self, *, force: bool) -> None:
        assert force
        self.removed = True


class Engine:
    """The part of docker.DockerClient that running a container takes."""

    def __init__(self, status: int) -> None:
        self.status, self.ran = status, list[Container]()
        self.containers = self

    def run(self, image: str, command: list[str], **how: Any) -> Container:
        self.ran.append(Container({"image": image, "command": command, **how}, self.status))
        return self.ran[-1]

    def info(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"id": "some/model"},
            "datasets": [{"name": "a", "hub": "imdb"}],
            "storage": {"uri": str(tmp_path / "root" / "store")},
            "tracking": {"uri": f"sqlite:///{tmp_path}/root/mlflow.db"},
        }
    )


@pytest.mark.parametrize("status", [0, 1, 137])
def test_a_containers_status_is_known_before_it_is_removed(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    engine: Any = Engine(status)
    given = {"environment": {"A": "task"}, "user": "1:2"}
    images = ImagesConfig(tag="v2")
    code = run_container(images, {"A": "run", "B": "run"}, engine, "loraloom/cpu:0.1.0", ["sh"], {"/r": {}}, **given)
    (container,) = engine.ran
    assert (code, container.removed) == (status, True)
    assert container.how == {
        "image": "loraloom/cpu:v2",
        "command": ["sh"],
        "detach": True,
        "volumes": {"/r": {}},
        "environment": {"A": "task", "B": "run"},
        "user": "1:2",
    }
    assert capsys.readouterr().out == "Traceback: �\n"


def test_a_container_is_removed_when_its_log_breaks_off() -> None:
    engine: Any = Engine(0)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(Container, "logs", lambda self, **how: (_ for _ in ()).throw(ConnectionError))
        run_container(ImagesConfig(), {}, engine, "a:1", [], {})
    assert engine.ran[0].removed


def test_kfp_takes_a_failed_container_for_what_it_is(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through kfp's own handler, as it calls us: this breaks where an upgrade changes what we replace."""
    for name in FILES:
        monkeypatch.delenv(name, raising=False)
    engine = Engine(1)
    monkeypatch.setattr("docker.from_env", lambda: engine)
    monkeypatch.setattr(docker_task_handler, "run_docker_container", docker_task_handler.run_docker_container)
    handler = docker_task_handler.DockerTaskHandler(
        "loraloom/worker:0.1.0", ["false"], str(tmp_path / "root" / "pipeline"), runner(config, tmp_path / "root")
    )
    assert handler.run() is Status.FAILURE
    how = engine.ran[0].how
    assert how["user"] == f"{os.getuid()}:{os.getgid()}"
    assert (how["read_only"], how["cap_drop"], how["labels"]) == (True, ["ALL"], {"loraloom.root": f"{tmp_path}/root"})
    assert [(mount["Source"], mount["Target"]) for mount in how["mounts"]] == [(f"{tmp_path}/root",) * 2]
    assert "auto_remove" not in how
    assert isinstance(handler.runner, local.DockerRunner)


def test_steps_see_credentials_and_no_more(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_WEBHOOK", "https://hooks.example.org")
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "HF_TOKEN", "LORALOOM_EVENTS", "SOME_OTHER_SECRET"):
        monkeypatch.setenv(name, "value")
    monkeypatch.setenv("HF_HOME", "/home/of/someone")
    seen = _environment(config, tmp_path)
    assert seen["LORALOOM_WEBHOOK"] == "https://hooks.example.org"
    assert {seen[name] for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "LORALOOM_EVENTS")} == {"value"}
    assert not {"SOME_OTHER_SECRET", "PATH", "PYTHONPATH", "HOME", "LORALOOM_GIT_SHA"} & set(seen)
    assert (seen["HF_HOME"], seen["TMPDIR"]) == (f"{tmp_path}/huggingface", f"{tmp_path}/tmp")


def test_what_lies_outside_the_root_is_mounted_too(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    assert _written(config, root) == [root]
    storage, tracking = StorageConfig(uri=str(tmp_path / "store")), TrackingConfig(uri=f"sqlite:///{tmp_path}/db/m.db")
    elsewhere = config.model_copy(update={"storage": storage, "tracking": tracking})
    assert _written(elsewhere, root) == [root, tmp_path / "store", tmp_path / "db"]
    assert (tmp_path / "db").is_dir()
    (tmp_path / "ca.pem").touch()
    (tmp_path / "token").touch()
    for name in FILES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file")
    secured = config.model_copy(update={"storage": StorageConfig(ca_bundle=str(tmp_path / "ca.pem"))})
    assert _read(secured) == [tmp_path / "ca.pem", tmp_path / "token"]


def test_no_engine_is_a_user_error(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(UserError, match="no Docker engine answers") as caught, containers(config, tmp_path, {"a:1"}):
        pass
    assert "--runner docker" in caught.value.remedy
