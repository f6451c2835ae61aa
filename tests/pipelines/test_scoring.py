"""Scoring as a pipeline: what reaches the cluster, what is refused, and the same graph run on this machine."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from components.config import RunConfig
from components.config_transport import unpack
from components.errors import UserError
from pipelines.cli import app
from pipelines.kfp_api import connect
from pipelines.scoring import compile_scoring
from pipelines.submit import submit_scoring
from tests.pipelines.kfp_stub import kfp_stub
from tests.pipelines.test_cluster import SETTINGS, containers, pods, tasks

JOB = {"source": "s3://in/a.csv", "output": "s3://out/b.csv", "version": "champion", "mode": "auto", "dataset": ""}
MORE = {
    "resources": {"score": {"gpus": 1, "memory": "24Gi", "retries": 2, "shm": "1Gi"}, "gather": {"memory": "4Gi"}},
    "cluster": {"secrets": {"loraloom-s3": {"AWS_ACCESS_KEY_ID": "access-key"}}, "labels": {"team": "desk"}},
}


def compiled(tmp_path: Path, **more: Any) -> list[dict[str, Any]]:
    """The two documents of a job in three shards."""
    config = RunConfig.model_validate(SETTINGS | MORE | more)
    compile_scoring(config, JOB, 3, tmp_path / "scoring.yaml")
    return list(yaml.safe_load_all((tmp_path / "scoring.yaml").read_text()))


def test_each_step_has_its_image_and_what_it_asked_for(tmp_path: Path) -> None:
    spec, platform = compiled(tmp_path)
    found, team = containers(spec), "registry.example.org/team/loraloom"
    assert {name: container["image"] for name, container in found.items()} == {
        "pin-version": f"{team}/cpu:abc123",
        "score": f"{team}/worker:abc123",
        "gather": f"{team}/cpu:abc123",
    }
    assert found["score"]["resources"]["accelerator"] == {"resourceType": "nvidia.com/gpu", "resourceCount": "1"}
    assert found["gather"]["resources"]["resourceMemoryLimit"] == "4Gi"
    assert tasks(spec)["score"]["retryPolicy"]["maxRetryCount"] == 2
    for name, pod in pods(platform).items():
        (secret,) = pod["secretAsEnv"]
        assert (secret["secretName"], secret["keyToEnv"]) == (
            "loraloom-s3",
            [{"secretKey": "access-key", "envVar": "AWS_ACCESS_KEY_ID"}],
        )
        assert pod["podMetadata"]["labels"]["app.kubernetes.io/component"] == name
        assert pod["podMetadata"]["labels"]["team"] == "desk"


def test_config_job_and_shards_are_parameters_with_defaults(tmp_path: Path) -> None:
    spec = compiled(tmp_path)[0]
    given = spec["root"]["inputDefinitions"]["parameters"]
    assert set(given) == {"config", "job", "shards"} and all(one["isOptional"] for one in given.values())
    assert unpack(given["config"]["defaultValue"]) == RunConfig.model_validate(SETTINGS | MORE)
    assert json.loads(given["job"]["defaultValue"]) == JOB
    assert given["shards"]["defaultValue"] == ["0/3", "1/3", "2/3"]


def test_every_shard_answers_with_the_pinned_version_and_the_answers_come_last(tmp_path: Path) -> None:
    spec = compiled(tmp_path)[0]
    root = spec["root"]["dag"]["tasks"]
    assert {name: set(task.get("dependentTasks", [])) for name, task in root.items()} == {
        "pin-version": set(),
        "score-all": {"pin-version"},
        "gather": {"pin-version", "score-all"},
    }
    for name in ("score-all", "gather"):
        assert root[name]["inputs"]["parameters"]["job"] == {
            "taskOutputParameter": {"outputParameterKey": "Output", "producerTask": "pin-version"}
        }
    (loop,) = (task for task in tasks(spec).values() if "parameterIterator" in task)
    assert loop["parameterIterator"]["items"]["inputParameter"] == "pipelinechannel--shards"
    # In a loop KFP's local runner would put the loop's item in the place of another task's output.
    assert "taskOutputParameter" not in json.dumps(tasks(spec)["score"]["inputs"])


def test_files_of_this_machine_are_refused_with_the_remedy(tmp_path: Path) -> None:
    config = RunConfig.model_validate(SETTINGS)
    with pytest.raises(UserError) as caught:
        compile_scoring(config, JOB | {"source": "in.csv", "output": "/tmp/out.csv"}, 2, tmp_path / "x.yaml")
    assert caught.value.problems == ("source: in.csv is no s3:// address", "output: /tmp/out.csv is no s3:// address")
    assert "aws s3 cp" in caught.value.remedy
    with pytest.raises(UserError, match="cannot run on a cluster"):
        compile_scoring(config.model_copy(update={"tracking": type(config.tracking)()}), JOB, 2, tmp_path / "x.yaml")
    assert not (tmp_path / "x.yaml").exists()


def test_the_same_job_is_followed_rather_than_run_twice() -> None:
    with kfp_stub() as stub:
        config = RunConfig.model_validate(SETTINGS | {"cluster": {"endpoint": stub.url}})
        api = connect(config.cluster)
        first, new = submit_scoring(api, config, JOB, 2)
        again, repeated = submit_scoring(api, config, JOB, 2)
        other, different = submit_scoring(api, config, JOB | {"mode": "exact"}, 2)
    assert (new, repeated, different) == (True, False, True)
    assert first.run_id == again.run_id != other.run_id
    assert [one.body["name"] for one in stub.sent("POST", "pipelines")] == ["desk-scoring"]
    assert len(stub.sent("POST", "pipelines/upload_version")) == 2


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | MORE))
    return path


def loraloom(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_command_compiles_and_submits(tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ("predict", JOB["source"], "-o", JOB["output"], "-c", config_file)
    written = loraloom(*files, "--compile", tmp_path / "p.yaml", "--shards", 2, "--version", 3)
    assert written.exit_code == 0, written.stderr
    given = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))["root"]["inputDefinitions"]["parameters"]
    assert json.loads(given["job"]["defaultValue"]) == JOB | {"version": "3"}
    assert given["shards"]["defaultValue"] == ["0/2", "1/2"]
    with kfp_stub() as stub:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", stub.url)
        started = loraloom(*files, "--submit", "--no-wait")
        again = loraloom(*files, "--submit", "--no-wait")
    assert started.exit_code == 0, started.stderr
    assert "started desk-scoring-" in started.stdout and "already at work:" in again.stdout
    assert stub.runs[0]["display_name"].startswith("desk-scoring-")


def test_what_the_command_cannot_do_on_a_cluster(config_file: Path) -> None:
    refused = loraloom("predict", "in.csv", "-o", JOB["output"], "-c", config_file, "--compile", "p.yaml")
    assert refused.exit_code == 2
    assert "source: in.csv is no s3:// address" in refused.stderr
    named = loraloom("predict", JOB["source"], "-o", JOB["output"], "--model", "desk@champion", "--submit")
    assert named.exit_code == 2 and "--model goes without a config" in named.stderr
