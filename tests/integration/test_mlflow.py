"""Adapters that MLflow's client puts into a bucket itself, without a server between."""

from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts

from components import tracking
from components.model_versions import find_version, register_adapter
from tests.integration.servers import S3Server

FILES = {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.safetensors": bytes(range(256)) * 50_000}


def test_an_adapter_goes_to_the_bucket_and_comes_back(
    credentials: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", credentials.endpoint)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name, data in FILES.items():
        (adapter / name).write_bytes(data)
    client = tracking.connect(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = tracking.open_run(client, "direct", "run-1", artifact_location="s3://bucket/direct")
    tracking.log_folder(client, run_id, adapter, "adapter", "d" * 64)
    number = register_adapter(client, "desk", run_id, "adapter", "d" * 64, {"kind": "adapter"})

    listed = credentials.client().list_objects_v2(Bucket="bucket", Prefix="direct/")["Contents"]
    prefix = f"direct/{run_id}/artifacts/adapter"
    assert {entry["Key"]: entry["Size"] for entry in listed} == {f"{prefix}/{n}": len(d) for n, d in FILES.items()}
    version = find_version(client, "desk-adapters", "digest", "d" * 64)
    assert version is not None
    assert (version.version, version.source) == (number, f"s3://bucket/{prefix}")
    fetched = Path(download_artifacts(artifact_uri=version.source, dst_path=str(tmp_path / "fetched")))
    assert {name: (fetched / name).read_bytes() for name in FILES} == FILES
