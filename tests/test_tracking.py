"""Runs, lineage and adapter versions against a real embedded store."""

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import mlflow.data
import pytest

from components import model_versions, tracking
from components.errors import UserError
from components.flat_params import flat_params

DIGEST = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return tracking.connect(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def run_id(client):
    return tracking.open_run(client, "weather", "first")


def store_folder(client):
    return Path(client.tracking_uri.removeprefix("sqlite:///")).parent


def test_importing_switches_telemetry_off():
    code = "import components.registry.register, mlflow.telemetry.client as c; print(c.get_telemetry_client())"
    environment = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_DISABLE_TELEMETRY", "CI")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def _race(uri, name, barrier, results):
    barrier.wait()
    client = tracking.connect(uri)
    run_id = tracking.open_run(client, "race", f"run-{name}")
    tracking.log_metrics(client, run_id, {"loss": 1.0})
    results.put(model_versions.register_adapter(client, "race", run_id, "adapter", name * 64, {}))


def test_four_processes_open_a_fresh_store_at_once(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    fork = multiprocessing.get_context("fork")  # spared four imports of MLflow; no store is open under this address yet
    barrier, results = fork.Barrier(4), fork.SimpleQueue()
    racers = [fork.Process(target=_race, args=(uri, str(i), barrier, results)) for i in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 4
    assert sorted(results.get() for _ in racers) == [1, 2, 3, 4]
    client = tracking.connect(uri)
    runs = client.search_runs([client.get_experiment_by_name("race").experiment_id])
    assert sorted(run.info.run_name for run in runs) == [f"run-{i}" for i in range(4)]


def test_a_server_that_does_not_answer_is_the_users_to_mend():
    with socket.socket() as taken:  # bound but not listening: nobody else can take the port, and nobody answers
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"does not answer") as raised:
            tracking.connect(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "tracking.uri" in raised.value.remedy


def test_an_injected_run_id_misplaces_nothing(client, monkeypatch):
    other = tracking.open_run(client, "elsewhere", "other")
    monkeypatch.setenv("MLFLOW_RUN_ID", other)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    run_id = tracking.open_run(client, "weather", "mine", {"job": "7"})
    tracking.log_metrics(client, run_id, {"loss": 0.5})
    with tracking.child_run(client, run_id, "child") as child:
        tracking.log_metrics(client, child, {"loss": 0.25})
    run = client.get_run(run_id)
    assert run.info.run_name == "mine" and run.data.metrics == {"loss": 0.5} and run.data.tags["job"] == "7"
    assert client.get_run(child).data.tags["mlflow.parentRunId"] == run_id
    assert client.get_run(other).data.metrics == {}


def test_artifacts_of_an_embedded_store_lie_beside_it(client, run_id):
    expected = (store_folder(client) / "mlflow-artifacts" / "weather").as_uri()
    assert client.get_run(run_id).info.artifact_uri == f"{expected}/{run_id}/artifacts"


def test_a_deleted_experiment_is_named(client):
    experiment_id = client.create_experiment("gone")
    client.delete_experiment(experiment_id)
    with pytest.raises(UserError, match="'gone' was deleted"):
        tracking.open_run(client, "gone", "x")


def test_a_child_ends_as_its_block_did_and_a_second_attempt_continues_it(client, run_id):
    with pytest.raises(RuntimeError), tracking.child_run(client, run_id, "group-0") as first:
        raise RuntimeError("killed")
    assert client.get_run(first).info.status == "FAILED"
    with tracking.child_run(client, run_id, "group-0", {"attempt": "2"}) as second:
        assert client.get_run(second).info.status == "RUNNING"
    assert second == first
    run = client.get_run(second)
    assert run.info.status == "FINISHED" and run.data.tags["attempt"] == "2"
    with tracking.child_run(client, run_id, "group-1") as third:
        pass
    assert third != first


def test_closing_ends_children_whose_process_was_killed(client, run_id):
    child = tracking._create(client, client.get_run(run_id).info.experiment_id, "lost", {tracking.PARENT: run_id})
    tracking.close_run(client, run_id)
    assert client.get_run(child).info.status == "FAILED"
    assert client.get_run(run_id).info.status == "FINISHED"
    tracking.close_run(client, run_id, failed=True)
    assert client.get_run(run_id).info.status == "FAILED"


def test_params_are_flat_and_long_ones_stay_different(client, run_id):
    settings = {
        "seed": 3,
        "model": {"id": "tiny", "revision": None},
        "datasets": [{"name": f"d{i}", "template": "{text}", "labels": {"a b?": "yes"}} for i in range(60)],
        "long": "x" * 7000,
        "lambdas": [1.0, 0.1],
    }
    tracking.log_params(client, run_id, settings)
    tracking.log_params(client, run_id, settings)  # a retry logs the same once more
    params = client.get_run(run_id).data.params
    assert params["seed"] == "3" and params["model.id"] == "tiny" and params["model.revision"] == "null"
    assert params["datasets.d59.template"] == "{text}" and params["lambdas"] == "[1.0,0.1]"
    assert params["datasets.d0.labels"] == '{"a b?":"yes"}'
    assert len(params["long"]) == 6000 and params["long"] != flat_params({"long": "x" * 7001})["long"]
    assert len(params) == 3 + 60 * 3 + 2


def test_metrics_and_curves(client, run_id):
    tracking.log_metrics(client, run_id, {f"m{i}": float(i) for i in range(1001)}, step=2)
    tracking.log_curve(client, run_id, [{"epoch": 0.5, "loss": 2.0}, {"epoch": 1.0, "loss": 1.0}], "train/")
    metrics = client.get_run(run_id).data.metrics
    assert metrics["m1000"] == 1000.0 and metrics["m0"] == 0.0
    history = client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]


def test_a_folder_keeps_its_files_and_its_digest(client, run_id, tmp_path):
    (tmp_path / "matrix.json").write_text("[[1]]")
    tracking.log_folder(client, run_id, tmp_path, "affinity", DIGEST)
    assert [file.path for file in client.list_artifacts(run_id, "affinity")] == ["affinity/matrix.json"]
    assert client.get_run(run_id).data.tags["digest.affinity"] == DIGEST


def test_bytes_become_a_file(client, run_id):
    tracking.log_bytes(client, run_id, b"\x89PNG", "figures/curve.png")
    tracking.log_bytes(client, run_id, b"top", "report.html")
    root = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    assert (root / "figures" / "curve.png").read_bytes() == b"\x89PNG" and (root / "report.html").read_bytes() == b"top"


def test_datasets_are_found_by_our_digest(client, run_id, tmp_path):
    uses = [
        tracking.DatasetUse("intent", DIGEST, tmp_path.as_uri(), {"train": 9, "test": 2}),
        tracking.DatasetUse("mood", DIGEST[::-1], "s3://bucket/datasets/mood", {"train": 5}, "evaluation"),
    ]
    tracking.log_datasets(client, run_id, uses)
    tracking.log_datasets(client, run_id, uses)
    inputs = {entry.dataset.name: entry for entry in client.get_run(run_id).inputs.dataset_inputs}
    assert sorted(inputs) == ["intent", "mood"]
    assert {tag.key: tag.value for tag in inputs["mood"].tags} == {
        "mlflow.data.context": "evaluation",
        "digest": DIGEST[::-1],
    }
    assert inputs["intent"].dataset.digest == DIGEST[:32]
    assert mlflow.data.get_source(inputs["mood"]).uri == "s3://bucket/datasets/mood"
    assert mlflow.data.get_source(inputs["intent"]).load() == str(tmp_path)
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment], f"dataset.digest = '{DIGEST[:32]}'")
    assert [run.info.run_id for run in found] == [run_id]


def test_an_adapter_is_registered_once(client, run_id, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    tracking.log_folder(client, run_id, tmp_path, "adapter", DIGEST)
    first = model_versions.register_adapter(client, "desk", run_id, "adapter", DIGEST, {"group": "group-0"})
    again = model_versions.register_adapter(client, "desk", run_id, "adapter", DIGEST, {"group": "group-0"})
    other = model_versions.register_adapter(client, "desk", run_id, "adapter", DIGEST[::-1], {})
    assert first == again == 1 != other
    kept = client.search_model_versions("name = 'desk-adapters'")
    assert {int(version.version) for version in kept} == {1, other}
    version = model_versions.adapter_version(client, "desk", DIGEST)
    assert version.version == 1
    assert model_versions.adapter_version(client, "desk", "0" * 64) is None
    assert version.run_id == run_id and version.tags == {"group": "group-0", "digest": DIGEST}
    assert version.source == f"{client.get_run(run_id).info.artifact_uri}/adapter"
