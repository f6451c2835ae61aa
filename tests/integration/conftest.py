"""A real S3 server for all tests here."""

import importlib.util
import os
from collections.abc import Iterator

import pytest

from tests.integration.servers import S3Server, swift_server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """OpenStack Swift with its S3 interface, and a bucket called 'bucket'."""
    folder = tmp_path_factory.mktemp("swift")
    if importlib.util.find_spec("swift") is None:
        pytest.skip("OpenStack Swift, which runs on Linux only, is not installed")
    try:
        os.setxattr(folder, "user.loraloom", b"")
    except OSError:
        pytest.skip(f"{folder} takes no extended attributes, and Swift keeps its metadata in them")
    with swift_server(folder) as server:
        yield server


@pytest.fixture
def credentials(swift: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its credentials in this process's environment."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it remembers the credentials of whoever came first
    for name, value in swift.environment.items():
        monkeypatch.setenv(name, value)
    return swift
