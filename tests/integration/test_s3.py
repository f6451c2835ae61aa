"""The object store, artifacts and gc on OpenStack Swift: every operation loraloom uses, on a second server."""

import socket
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from components.artifacts import Artifact, find, load, publish
from components.config import StorageConfig
from components.errors import UserError
from components.garbage import find_garbage, remove
from components.s3_store import S3Store
from components.step import write_record
from tests.integration.servers import S3Server

PART = 8 * 2**20  # above this size boto3 sends a file in parts
PAGE = 20  # max_bucket_listing in proxy.conf


@pytest.fixture
def store(credentials: S3Server, request: pytest.FixtureRequest) -> S3Store:
    """A store under a prefix of the test's own."""
    return S3Store("bucket", request.node.name, credentials.storage())


def test_write_read_replace_create_delete(store: S3Store) -> None:
    store.write("a/b", b"one")
    store.write("a/b", b"two")
    store.create("a/b", b"three")
    assert (store.exists("a/b"), store.read("a/b")) == (True, b"two")
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")
    store.create("a/b", b"four")
    assert store.read("a/b") == b"four"


def test_missing_keys_are_key_errors(store: S3Store, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="none"):
        store.read("none")
    with pytest.raises(KeyError, match="none"):
        store.download("none", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_travels_in_parts(store: S3Store, swift: S3Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * (2 * PART // 256) + b"the end"
    (tmp_path / "in").write_bytes(content)
    store.upload(tmp_path / "in", "large")
    head = swift.client().head_object(Bucket="bucket", Key=f"{store.prefix}/large")
    assert head["ETag"].strip('"').endswith("-3")
    store.download("large", tmp_path / "new folder" / "out")
    assert (tmp_path / "new folder" / "out").read_bytes() == content == store.read("large")
    assert [(entry.key, entry.size) for entry in store.entries("")] == [("large", len(content))]


def test_listing_goes_beyond_a_page(store: S3Store) -> None:
    names = [f"many/{number:03d}" for number in range(PAGE + 5)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: store.write(name, b"x"), names))
    assert list(store.keys("many/")) == names
    assert list(store.keys("many/01")) == names[10:20]
    assert {entry.size for entry in store.entries("")} == {1}
    assert all(abs(datetime.now(UTC) - entry.modified) < timedelta(hours=1) for entry in store.entries("many/00"))


def test_a_link_opens_until_it_ends_and_cannot_be_changed(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("report.html", b"<html>")
    link = store.link("report.html", 600, "text/html; charset=utf-8")
    with urlopen(link) as page:
        assert (page.read(), page.headers["content-type"]) == (b"<html>", "text/html; charset=utf-8")
    with pytest.raises(HTTPError, match="403"):
        urlopen(link.replace("report.html", "other.html"))
    with pytest.raises(HTTPError, match="403"):
        urlopen(link.replace("Expires=600", "Expires=6000"))
    earlier = datetime.now(UTC) - timedelta(hours=1)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda **_: earlier.replace(tzinfo=None))
    with pytest.raises(HTTPError, match="403"):
        urlopen(store.link("report.html", 600, "text/html"))


def test_buckets_as_host_names(credentials: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, asked = socket.getaddrinfo, list[str]()

    def here(host: Any, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1" if str(host).endswith("s3.test") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    port = credentials.endpoint.rpartition(":")[2]
    virtual = credentials.storage(endpoint_url=f"http://s3.test:{port}", addressing="virtual")
    S3Store("bucket", "hosts", virtual).write("k", b"data")
    assert set(asked) == {"bucket.s3.test"}
    assert S3Store("bucket", "hosts", credentials.storage()).read("k") == b"data"


def test_a_wrong_secret_and_a_missing_bucket_are_named(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = StorageConfig(endpoint_url=store._endpoint, addressing="path")
    with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
        S3Store("nowhere", "", storage).write("k", b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = S3Store("bucket", "", storage)
    for call in (lambda: refused.read("k"), lambda: refused.exists("k"), lambda: refused.create("k", b"")):
        with pytest.raises(UserError, match="access to s3://bucket/ is denied"):
            call()


def write_files(folder: Path) -> Mapping[str, Any]:
    (folder / "a.txt").write_bytes(b"one")
    (folder / "deep").mkdir()
    (folder / "deep" / "b.bin").write_bytes(bytes(range(256)))
    return {"loss": 0.5}


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has no copies of artifacts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.usefixtures("fresh_cache")
def test_artifacts_come_back_and_damage_is_found(store: S3Store, tmp_path: Path, monkeypatch: Any) -> None:
    made = publish(store, "features", {"dim": 4}, write_files)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    again = find(store, made.key)
    assert again is not None
    assert again.folder != made.folder
    assert (again.folder / "deep" / "b.bin").read_bytes() == bytes(range(256))
    (damaged,) = (key for key in store.keys(made.key) if key.endswith("b.bin"))
    store.write(damaged, b"else")
    (again.folder / "deep" / "b.bin").unlink()
    with pytest.raises(UserError, match=r"b.bin does not match the checksum"):
        load(store, made.key)


@pytest.mark.usefixtures("fresh_cache")
def test_publishers_with_different_results_for_one_key_leave_one_whole_artifact(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swift's If-None-Match lets several of them through; each leaves its files in a folder of its own."""

    def publisher(mine: int) -> Artifact:
        def write(folder: Path) -> Mapping[str, Any]:
            for name in range(4):
                (folder / f"{name}.txt").write_text(f"{mine} {name}")
            return {"by": mine}

        return publish(store, "kind", {}, write, key="kind/same")

    with ThreadPoolExecutor(6) as pool:
        returned = list(pool.map(publisher, range(6)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))  # from the bucket, not from this machine
    stands = load(store, "kind/same")
    assert stands.facts["by"] in range(6)
    for artifact in (*returned, stands):
        read = [(artifact.folder / f"{name}.txt").read_text() for name in range(4)]
        assert read == [f"{artifact.facts['by']} {name}" for name in range(4)]


@pytest.mark.usefixtures("fresh_cache")
def test_garbage_is_found_and_removed(store: S3Store) -> None:
    needed = publish(store, "features", {"dataset": "needed"}, write_files)
    free = publish(store, "features", {"dataset": "free"}, write_files)
    record = {"step": "extract", "part": "", "artifacts": {"features/a": {"key": needed.key}}}
    write_record(store, "run-1", record)
    soon = datetime.now(UTC) + timedelta(hours=1)
    (found,) = find_garbage(store, ["run-1"], soon)
    assert (found.folder, len(found.keys)) == (free.key, 3)
    remove(store, found)
    assert list(store.keys("features/")) == list(store.keys(f"{needed.key}/"))
    assert find_garbage(store, ["run-1"], soon) == []
