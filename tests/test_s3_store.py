"""The S3 store over real HTTP, against moto's server."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse
from urllib.request import Request, urlopen

import boto3
import pytest
from werkzeug.serving import make_ssl_devcert

from components.config import StorageConfig
from components.errors import UserError
from components.s3_store import S3Store
from tests.faulty_s3 import Faulty, break_off, moto, pass_on, refuse, serve

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


def test_what_is_there_stays_when_it_is_created_again(store: S3Store) -> None:
    store.create("key", b"first")
    store.create("key", b"second")
    assert store.read("key") == b"first"


def test_a_listing_tells_size_and_time(store: S3Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)  # S3 cuts to seconds
    store.write("a/1", b"12345")
    (entry,) = store.entries("a/")
    assert (entry.key, entry.size) == ("a/1", 5)
    assert before <= entry.modified <= datetime.now(UTC)


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
    store.create("created", b"")
    for key in ("small", "created", "large"):
        head = client.head_object(Bucket="bucket", Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/mine")


@pytest.fixture
def faulty(client: Any) -> Iterator[tuple[S3Store, Faulty]]:
    """A store at a server that can be told to fail."""
    app = Faulty()
    with serve(app) as address:
        yield S3Store("bucket", "", StorageConfig(endpoint_url=address)), app


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited for, without waiting."""
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken


def test_a_busy_server_is_asked_again_with_jitter(faulty: tuple[S3Store, Faulty], naps: list[float]) -> None:
    store, app = faulty
    store.write("k", b"data")
    app.faults["GET"] = [refuse("503 Slow Down", "SlowDown")] * 4
    assert store.read("k") == b"data"
    assert len(naps) == 4
    assert all(0 <= nap <= 2**number for number, nap in enumerate(naps))
    assert all(nap % 1 for nap in naps)  # not the powers of two themselves


def test_a_server_that_stays_busy_is_told_of(faulty: tuple[S3Store, Faulty], naps: list[float]) -> None:
    store, app = faulty
    app.faults["GET"] = [refuse("503 Slow Down", "SlowDown")] * 5
    with pytest.raises(UserError, match=r"s3://bucket/.*SlowDown.*reached max retries: 4"):
        store.read("k")
    assert app.faults["GET"] == []


@pytest.mark.parametrize("size", [1000, 2 * PART])
def test_a_body_that_breaks_off_is_asked_for_again(faulty: tuple[S3Store, Faulty], tmp_path: Path, size: int) -> None:
    store, app = faulty
    content = bytes(range(250)) * (size // 250)
    store.write("k", content)
    app.faults["GET"] = [break_off, break_off]
    assert store.read("k") == content
    app.faults["GET"] = [break_off, break_off]
    store.download("k", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    assert app.faults["GET"] == []


def test_half_a_download_is_never_seen(faulty: tuple[S3Store, Faulty], tmp_path: Path) -> None:
    store, app = faulty
    store.write("k", b"data" * 1000)
    for call in (lambda: store.read("k"), lambda: store.download("k", tmp_path / "out")):
        app.faults["GET"] = [break_off] * 5
        with pytest.raises(UserError, match="s3://bucket/k cannot be reached"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_half_an_upload_is_never_seen(faulty: tuple[S3Store, Faulty], tmp_path: Path, naps: list[float]) -> None:
    store, app = faulty
    (tmp_path / "in").write_bytes(bytes(3 * PART))
    app.faults["PUT"] = [pass_on, *[refuse("500 Internal Server Error", "InternalError")] * 20]
    with pytest.raises(UserError, match=r"InternalError.*\n-> if it stays so, see the server's log"):
        store.upload(tmp_path / "in", "k")
    assert list(store.keys("")) == []


def test_creating_waits_for_another_write_to_end(faulty: tuple[S3Store, Faulty], naps: list[float]) -> None:
    store, app = faulty
    app.faults["PUT"] = [refuse("409 Conflict", "ConditionalRequestConflict")] * 2
    store.create("k", b"mine after all")
    assert store.read("k") == b"mine after all"
    app.faults["PUT"] = [refuse("409 Conflict", "ConditionalRequestConflict")] * 5
    with pytest.raises(UserError, match="ConditionalRequestConflict"):
        store.create("other", b"")


def test_a_server_with_a_certificate_of_its_own(client: Any, tmp_path: Path) -> None:
    certificate, key = make_ssl_devcert(str(tmp_path / "server"), host="localhost")
    with serve(moto(), (certificate, key)) as address:
        trusting = S3Store("bucket", "", StorageConfig(endpoint_url=address, ca_bundle=certificate))
        trusting.write("k", b"data")
        assert trusting.read("k") == b"data"
        with pytest.raises(UserError, match=r"(?s)CERTIFICATE_VERIFY_FAILED.*storage.ca_bundle"):
            S3Store("bucket", "", StorageConfig(endpoint_url=address)).read("k")


def test_a_link_opens_without_credentials(store: S3Store) -> None:
    store.write("report.html", b"<html>")
    with urlopen(store.link("report.html", 3600, "text/html; charset=utf-8")) as page:
        assert (page.read(), page.headers["content-type"]) == (b"<html>", "text/html; charset=utf-8")


def test_a_link_is_signed_in_the_way_that_encrypted_objects_need(store: S3Store) -> None:
    asked = parse_qs(urlparse(store.link("k", 120, "text/html")).query)
    assert asked["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert asked["X-Amz-Expires"] == ["120"]


def test_a_missing_bucket_is_named(client: Any, endpoint: str, tmp_path: Path) -> None:
    store = S3Store("nowhere", "x", StorageConfig(endpoint_url=endpoint))
    (tmp_path / "file").write_bytes(b"")
    calls: list[Callable[[], object]] = [
        lambda: store.exists("k"),
        lambda: store.read("k"),
        lambda: store.write("k", b""),
        lambda: store.create("k", b""),
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
