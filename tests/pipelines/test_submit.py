"""What reaches Kubeflow Pipelines when a run is submitted, and that nothing is done twice: against a server of HTTP."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from typer.testing import CliRunner

from components.cluster_config import ClusterConfig
from components.config import RunConfig
from components.config_transport import unpack
from components.errors import UserError
from components.object_store import open_store
from pipelines import follow as following
from pipelines import kfp_api
from pipelines.cli import app
from pipelines.invocation import typed
from pipelines.kfp_api import Unanswered, connect
from pipelines.submit import submit
from tests.pipelines.kfp_stub import KfpStub, kfp_stub
from tests.pipelines.test_cluster import bucket


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, endpoint: str, tmp_path: Path) -> Iterator[KfpStub]:
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    with kfp_stub() as stub:
        stub.storage = bucket(endpoint, tmp_path.name.replace("_", "-").lower()[:60].rstrip("-"), monkeypatch)
        yield stub


def settings(stub: KfpStub, folder: Path, **cluster: Any) -> dict[str, Any]:
    """A config whose dataset lies on this machine, in a file of the folder."""
    data = folder / "mood.jsonl"
    if not data.exists():
        data.write_text('{"text": "fine", "label": "good"}\n')
    return {
        "name": "desk_2",
        "model": {"id": "org/model"},
        "datasets": [{"name": "mood", "path": str(data)}],
        "storage": stub.storage,
        "tracking": {"uri": "http://mlflow:5000"},
        "cluster": {"endpoint": stub.url, **cluster},
        "schedule": {"cron": "0 3 * * SUN"},
    }


def config_of(stub: KfpStub, folder: Path, **cluster: Any) -> RunConfig:
    return RunConfig.model_validate(settings(stub, folder, **cluster))


def submitted(config: RunConfig) -> tuple[Any, bool]:
    return submit(connect(config.cluster), config)


def test_a_version_a_run_and_all_that_they_need_are_sent(stub: KfpStub, tmp_path: Path) -> None:
    run, new = submitted(config_of(stub, tmp_path, service_account="loraloom-pipeline"))
    assert new
    (pipeline,) = stub.sent("POST", "pipelines")
    assert pipeline.body == {"display_name": "desk-2", "name": "desk-2"}
    (experiment,) = stub.sent("POST", "experiments")
    assert experiment.body["display_name"] == "desk_2"
    (upload,) = stub.sent("POST", "pipelines/upload_version")
    assert upload.query["pipelineid"] == stub.pipelines[0]["pipeline_id"]
    spec, platform = yaml.safe_load_all(upload.body)
    assert (spec["pipelineInfo"]["name"], list(platform)) == ("loraloom", ["platforms"])
    (created,) = stub.sent("POST", "runs")
    assert created.body == {
        "display_name": run.display_name,
        "experiment_id": stub.experiments[0]["experiment_id"],
        "pipeline_version_reference": {
            "pipeline_id": stub.pipelines[0]["pipeline_id"],
            "pipeline_version_id": stub.versions[0]["pipeline_version_id"],
        },
        "runtime_config": {"parameters": {}},
        "service_account": "loraloom-pipeline",
    }
    assert run.display_name.startswith("desk_2-2")


def test_the_pipeline_refers_to_staged_data(stub: KfpStub, tmp_path: Path) -> None:
    submitted(config_of(stub, tmp_path))
    spec = next(yaml.safe_load_all(stub.versions[0]["text"]))
    sent = unpack(spec["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"])
    store = open_store(sent.storage, Path())
    key = str(sent.datasets[0].path).removeprefix(f"{sent.storage.uri}/")
    assert key.startswith("staged/")
    assert store.read(key).decode() == (tmp_path / "mood.jsonl").read_text()


def test_the_same_again_is_followed_rather_than_run_twice(stub: KfpStub, tmp_path: Path) -> None:
    config = config_of(stub, tmp_path)
    first, _ = submitted(config)
    again, new = submitted(config)
    assert (again.run_id, new) == (first.run_id, False)
    assert [len(stub.sent("POST", path)) for path in ("pipelines", "pipelines/upload_version", "runs")] == [1, 1, 1]


@pytest.mark.parametrize("ended", ["SUCCEEDED", "FAILED", "CANCELED"])
def test_what_has_ended_is_run_again_from_the_same_version(stub: KfpStub, tmp_path: Path, ended: str) -> None:
    config = config_of(stub, tmp_path)
    first, _ = submitted(config)
    stub.runs[0]["state"] = ended
    again, new = submitted(config)
    assert new and again.run_id != first.run_id
    assert len(stub.versions) == 1


def test_changed_rows_are_another_version_and_another_run(stub: KfpStub, tmp_path: Path) -> None:
    config = config_of(stub, tmp_path)
    submitted(config)
    (tmp_path / "mood.jsonl").write_text('{"text": "awful", "label": "bad"}\n')
    _, new = submitted(config)
    assert new
    assert len({version["display_name"] for version in stub.versions}) == len(stub.runs) == 2
    assert len(stub.pipelines) == len(stub.experiments) == 1


@pytest.mark.parametrize("path", ["pipelines", "pipelines/upload_version", "runs"])
@pytest.mark.parametrize("kind", ["lost", 504])
def test_an_answer_that_is_lost_makes_nothing_twice(stub: KfpStub, tmp_path: Path, path: str, kind: str | int) -> None:
    config = config_of(stub, tmp_path)
    stub.fail("POST", path, kind)
    if kind == "lost":  # it was done, so it is found
        submitted(config)
    else:  # it was not, so there is nothing to find, and the user's next try does it
        with pytest.raises(Unanswered):
            submitted(config)
        submitted(config)
    assert len(stub.pipelines) == len(stub.versions) == len(stub.runs) == 1


def test_a_dropped_connection_is_one_clear_error_and_can_be_repeated(stub: KfpStub, tmp_path: Path) -> None:
    config = config_of(stub, tmp_path)
    stub.fail("POST", "runs", "drop")
    with pytest.raises(Unanswered, match=r"did not create the run: .*closed connection without response"):
        submitted(config)
    assert stub.runs == []
    submitted(config)
    assert len(stub.runs) == 1


def test_a_question_that_is_dropped_is_asked_again(stub: KfpStub, tmp_path: Path) -> None:
    stub.fail("GET", "experiments", "drop")
    stub.fail("GET", "pipelines", 503)
    submitted(config_of(stub, tmp_path))
    assert len(stub.sent("GET", "experiments")) == 3  # kfp looks once more before it creates one
    assert len(stub.sent("GET", "pipelines")) == 2


def test_what_cannot_work_is_told_before_anything_is_uploaded(stub: KfpStub, tmp_path: Path) -> None:
    config = RunConfig.model_validate(settings(stub, tmp_path) | {"tracking": {}})
    with pytest.raises(UserError, match="cannot run on a cluster"):
        submitted(config)
    with pytest.raises(UserError, match="one dataset has no subsets to compare"):
        submit(connect(config.cluster), config, "select")
    assert list(open_store(config.storage, Path()).keys("")) == []
    assert [request.path for request in stub.requests] == ["healthz"] * 4


# The way to the API ---------------------------------------------------------------------------------------------------


def test_the_token_comes_from_the_environment(stub: KfpStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.token = "a-token"
    with pytest.raises(UserError, match="does not know who asks") as caught:
        connect(ClusterConfig(endpoint=stub.url))
    assert "KF_PIPELINES_TOKEN" in caught.value.remedy
    assert len(stub.requests) == 1  # kfp would ask five times over 25 seconds
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "a-token")
    submitted(config_of(stub, tmp_path))
    assert {request.headers.get("authorization") for request in stub.requests[1:]} == {"Bearer a-token"}


def test_a_pods_token_is_read_from_its_file(stub: KfpStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.token = "of-a-pod"
    (tmp_path / "token").write_text("of-a-pod")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    connect(ClusterConfig(endpoint=stub.url))


def test_the_endpoint_may_come_from_the_environment(stub: KfpStub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no Kubeflow Pipelines is named"):
        connect(ClusterConfig())
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", f"{stub.url}/")
    assert connect(ClusterConfig()).run_page("7") == f"{stub.url}/#/runs/details/7"


def test_several_users_need_a_namespace(stub: KfpStub, tmp_path: Path) -> None:
    stub.multi_user = True
    with pytest.raises(UserError, match="each in a namespace"):
        connect(ClusterConfig(endpoint=stub.url))
    submitted(config_of(stub, tmp_path, namespace="team"))
    assert stub.sent("POST", "pipelines")[0].body["namespace"] == "team"
    assert stub.sent("POST", "experiments")[0].body["namespace"] == "team"
    assert {request.query.get("namespace") for request in stub.sent("GET", "experiments")} == {"team"}


def test_two_experiments_of_one_name_are_the_users_to_tell_apart(stub: KfpStub, tmp_path: Path) -> None:
    stub.experiments += [{"experiment_id": name, "display_name": "desk_2"} for name in ("a", "b")]
    with pytest.raises(UserError, match="several experiments are called desk_2") as caught:
        submitted(config_of(stub, tmp_path))
    assert "cluster.experiment" in caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (400, r"did not create the run \(400\): the stub was told to fail"),
        (403, r"will not create the run for you \(403\)"),
        (404, r"did not create the run \(404\)"),
        (500, r"did not create the run \(500\): the stub was told to fail"),
        (503, r"did not create the run \(503\)"),
    ],
)
def test_every_refusal_is_one_clear_error(stub: KfpStub, tmp_path: Path, kind: int, says: str) -> None:
    stub.fail("POST", "runs", kind)
    with pytest.raises(UserError, match=says):
        submitted(config_of(stub, tmp_path))
    assert len(stub.sent("POST", "runs")) == 1


def test_an_answer_that_does_not_come_ends_the_wait(
    stub: KfpStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kfp_api, "ANSWER_SECONDS", 0.5)
    stub.fail("POST", "runs", "silent")
    with pytest.raises(Unanswered, match=r"did not create the run: .*timed out"):
        submitted(config_of(stub, tmp_path))


def test_nobody_there_is_told_with_the_reason() -> None:
    with pytest.raises(Unanswered, match=r"at http://127.0.0.1:9 did not answer: .*refused"):
        connect(ClusterConfig(endpoint="http://127.0.0.1:9"))


def test_a_login_page_is_not_taken_for_an_answer(stub: KfpStub) -> None:
    stub.fail("GET", "healthz", "login")
    with pytest.raises(UserError, match=r"is not the API of Kubeflow Pipelines \(text/html\)"):
        connect(ClusterConfig(endpoint=stub.url))


def self_signed(file: Path) -> Path:
    """A certificate for 127.0.0.1 that only itself vouches for, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = builder.add_extension(address, critical=False).sign(key, SHA256())
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(certificate.public_bytes(pem[0]) + key.private_bytes(*pem))
    return file


def test_a_certificate_that_nobody_vouches_for_is_told_and_can_be_named(stub: KfpStub, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path / "stub.pem")
    with kfp_stub(certificate) as secure:
        with pytest.raises(UserError, match=r"cannot be trusted: .*certificate verify failed") as caught:
            connect(ClusterConfig(endpoint=secure.url))
        assert "cluster.ca_bundle" in caught.value.remedy
        assert connect(ClusterConfig(endpoint=secure.url, ca_bundle=str(certificate))).endpoint == secure.url


def test_the_command_says_where_the_run_is_and_at_its_end_where_its_report(
    stub: KfpStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file = tmp_path / "config.yaml"
    config_file.write_text(yaml.safe_dump(settings(stub, tmp_path)))
    shown = CliRunner().invoke(app, ["submit", "-c", str(config_file), "--no-wait"], catch_exceptions=False)
    run = stub.runs[0]
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-3:] == [
        f"started {run['display_name']} ({run['run_id']})",
        f"{stub.url}/#/runs/details/{run['run_id']}",
        f"-> {typed('status', run['run_id'], '-c', config_file)}",
    ]
    assert json.loads(json.dumps(run["runtime_config"])) == {"parameters": {}}
    monkeypatch.setattr(following, "sleep", lambda seconds: run.update(state="SUCCEEDED"))
    shown = CliRunner().invoke(app, ["submit", "-c", str(config_file)], catch_exceptions=False)
    assert shown.stdout.splitlines()[-2:] == [
        f"{run['display_name']} succeeded",
        f"-> in MLflow at http://mlflow:5000, run {run['run_id']}: report.html, unless nothing had changed",
    ]
