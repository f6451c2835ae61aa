"""The S3 store over real HTTP, against moto's server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest

from components.config import StorageConfig
from components.errors import UserError
from components.s3_store import S3Store

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PART = 8 * 2**20  # above this size boto3 sends a file in parts


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bare client with a fresh bucket called 'bucket'; test credentials in the environment."""
    for name in KEYS:
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    return client


@pytest.fixture
def store(client: Any, endpoint: str) -> S3Store:
    return S3Store("bucket", "team/runs", StorageConfig(endpoint_url=endpoint))


def test_write_read_replace_delete(store: S3Store) -> None:
    store.write("a/b", b"one")
    store.write("a/b", b"two")
    assert store.exists("a/b")
    assert store.read("a/b") == b"two"
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")


def test_keys_stand_under_the_prefix(store: S3Store, client: Any) -> None:
    store.write("key", b"")
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket="bucket")["Contents"]] == ["team/runs/key"]
    assert store.uri("key") == "s3://bucket/team/runs/key"


def test_an_empty_prefix_is_the_bucket_itself(store: S3Store, endpoint: str) -> None:
    root = S3Store("bucket", "", StorageConfig(endpoint_url=endpoint))
    root.write("key", b"data")
    assert root.uri("key") == "s3://bucket/key"
    assert list(root.keys("")) == ["key"]


def test_missing_keys_are_key_errors(store: S3Store, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="none"):
        store.read("none")
    with pytest.raises(KeyError, match="none"):
        store.download("none", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_large_file_travels_in_parts(store: S3Store, client: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * (2 * PART // 256) + b"the end"
    (tmp_path / "in").write_bytes(content)
    store.upload(tmp_path / "in", "large")
    assert client.head_object(Bucket="bucket", Key="team/runs/large")["ETag"].strip('"').endswith("-3")
    store.download("large", tmp_path / "new folder" / "out")
    assert (tmp_path / "new folder" / "out").read_bytes() == content


def test_listing_goes_beyond_a_page(store: S3Store, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")  # a page; AWS has 1000
    names = [f"many/{number:02d}" for number in range(13)]
    for name in names:
        client.put_object(Bucket="bucket", Key=f"team/runs/{name}", Body=b"")
    client.put_object(Bucket="bucket", Key="team/runs/many/", Body=b"")  # a console's folder marker
    client.put_object(Bucket="bucket", Key="team/runsother/many/x", Body=b"")
    assert list(store.keys("many/")) == names
    assert list(store.keys("")) == names
    assert list(store.keys("many/1")) == ["many/10", "many/11", "many/12"]


def test_objects_are_encrypted_with_the_key(client: Any, endpoint: str, tmp_path: Path) -> None:
    store = S3Store("bucket", "", StorageConfig(endpoint_url=endpoint, kms_key="alias/mine"))
    (tmp_path / "file").write_bytes(b"x" * (PART + 1))
    store.write("small", b"")
    store.upload(tmp_path / "file", "large")
    for key in ("small", "large"):
        head = client.head_object(Bucket="bucket", Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/mine")


def test_a_missing_bucket_is_named(client: Any, endpoint: str, tmp_path: Path) -> None:
    store = S3Store("nowhere", "x", StorageConfig(endpoint_url=endpoint))
    (tmp_path / "file").write_bytes(b"")
    calls: list[Callable[[], object]] = [
        lambda: store.exists("k"),
        lambda: store.read("k"),
        lambda: store.write("k", b""),
        lambda: store.upload(tmp_path / "file", "k"),
        lambda: store.download("k", tmp_path / "out"),
        lambda: list(store.keys("")),
        lambda: store.delete("k"),
    ]
    for call in calls:
        with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
            call()


def test_refused_credentials_are_named(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on moto checks credentials
    calls: list[Callable[[], object]] = [
        lambda: store.read("k"),
        lambda: store.exists("k"),
        lambda: store.write("k", b""),
    ]
    for call in calls:
        with pytest.raises(UserError, match=r"access to s3://bucket/team/runs is denied"):
            call()


def test_an_endpoint_that_does_not_answer_is_named(client: Any) -> None:
    store = S3Store("bucket", "", StorageConfig(endpoint_url="http://127.0.0.1:9"))
    with pytest.raises(UserError, match=r"(?s)s3://bucket/k cannot be reached at http://127.0.0.1:9.*endpoint_url"):
        store.read("k")


def test_a_broken_ca_bundle_is_named(client: Any, endpoint: str, tmp_path: Path) -> None:
    storage = StorageConfig(endpoint_url=endpoint.replace("http", "https"), ca_bundle=str(tmp_path / "none.pem"))
    with pytest.raises(UserError, match=r"(?s)SSL validation failed.*storage.ca_bundle"):
        S3Store("bucket", "", storage).read("k")


def test_missing_credentials_are_named(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*KEYS, "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="Unable to locate credentials"):
        S3Store("bucket", "", StorageConfig(endpoint_url=endpoint)).read("k")


@pytest.mark.parametrize("settings", [{"endpoint_url": "localhost:9"}, {"region": "x y"}], ids=str)
def test_broken_settings_are_refused_at_once(settings: dict[str, str]) -> None:
    with pytest.raises(UserError, match="storage: "):
        S3Store("bucket", "", StorageConfig(**settings))


@pytest.mark.parametrize(
    ("addressing", "url"),
    [("path", "https://s3.example.org/bucket/k"), ("virtual", "https://bucket.s3.example.org/k")],
)
def test_addressing(client: Any, addressing: Any, url: str) -> None:
    store = S3Store("bucket", "", StorageConfig(endpoint_url="https://s3.example.org", addressing=addressing))
    assert store._client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "k"}).startswith(url)
