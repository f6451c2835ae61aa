"""Servers as production has them: a real S3 that checks signatures, and an MLflow server that keeps artifacts on it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import boto3
import pytest
from botocore.config import Config

from components.config import StorageConfig

SECONDS_TO_START = 120.0


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and who may use it."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 reads from the environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def storage(self, prefix: str = "loraloom", **settings: Any) -> StorageConfig:
        """How a config names the server: path-style, with a bucket of its own."""
        values = {"uri": f"s3://bucket/{prefix}", "endpoint_url": self.endpoint, "addressing": "path", **settings}
        return StorageConfig.model_validate(values)

    def client(self) -> Any:
        """A bare client, for a look behind loraloom's back."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


@contextmanager
def swift_server(folder: Path) -> Iterator[S3Server]:
    """OpenStack Swift with its S3 interface, its files below ``folder``, and a bucket called 'bucket'."""
    command = [sys.executable, str(Path(__file__).with_name("swift_server.py")), str(folder / "swift")]
    with (folder / "swift.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        with ended(process):
            assert process.stdout is not None
            port = process.stdout.readline().decode().strip()
            assert port, (folder / "swift.log").read_text()
            server = S3Server(f"http://127.0.0.1:{port}", "test:tester", "testing")
            server.client().create_bucket(Bucket="bucket")
            yield server


@contextmanager
def mlflow_server(swift: S3Server, folder: Path) -> Iterator[str]:
    """``mlflow server`` with artifacts proxied to the bucket; yields its address. Only it knows S3's credentials."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", "s3://bucket/mlflow"]
    # Without its job workers the server is two processes rather than ten.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {**os.environ, **swift.environment, "MLFLOW_S3_ENDPOINT_URL": swift.endpoint, **quiet}
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)
        with ended(process):
            address = f"http://127.0.0.1:{port}"
            wait_until_healthy(address, process, folder / "mlflow.log")
            yield address


def wait_until_healthy(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when the server answers; fail with its log when it has died or takes too long."""
    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the MLflow server did not start:\n{log.read_text()[-3000:]}")


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Whatever happens, the process is gone afterwards."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
