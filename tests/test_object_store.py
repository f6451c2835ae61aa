"""The local store, and which store an address opens."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.config import StorageConfig
from components.errors import UserError
from components.object_store import Entry, LocalStore, open_store
from components.s3_store import S3Store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_write_read_replace_delete(store: LocalStore) -> None:
    store.write("a/b.txt", b"one")
    store.write("a/b.txt", b"two")
    assert store.exists("a/b.txt")
    assert store.read("a/b.txt") == b"two"
    store.delete("a/b.txt")
    store.delete("a/b.txt")
    assert not store.exists("a/b.txt")


def test_what_is_there_stays_when_it_is_created_again(store: LocalStore) -> None:
    store.create("a/b", b"first")
    store.create("a/b", b"second")
    assert store.read("a/b") == b"first"
    assert list(store.root.rglob("*.part")) == []


def test_a_listing_tells_size_and_time(store: LocalStore) -> None:
    store.write("a/1", b"12345")
    os.utime(store.root / "a/1", (86400, 86400))
    store.write("a/2", b"")
    first, second = store.entries("a/")
    assert first == Entry("a/1", 5, datetime(1970, 1, 2, tzinfo=UTC))
    assert (second.key, second.size, second.modified > first.modified) == ("a/2", 0, True)


def test_others_may_read_what_is_written(store: LocalStore) -> None:
    """Containers and colleagues run as other users."""
    before = os.umask(0o022)
    store.write("key", b"")
    os.umask(before)
    assert (store.root / "key").stat().st_mode & 0o777 == 0o644


def test_a_folder_gives_no_links(store: LocalStore) -> None:
    with pytest.raises(UserError, match=r"(?s)is a folder, which gives no links.*storage.uri"):
        store.link("key", 60, "text/html")


def test_half_a_download_is_never_seen(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("key", b"data")

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"da")
        raise OSError("disk full")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="disk full"):
        store.download("key", tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_is_no_object(store: LocalStore) -> None:
    store.write("a/b.txt", b"")
    assert not store.exists("a")


def test_missing_keys_are_key_errors(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="none"):
        store.read("none")
    with pytest.raises(KeyError, match="none"):
        store.download("none", tmp_path / "x")


def test_upload_and_download_copy_bytes(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(range(256)))
    store.upload(tmp_path / "in", "deep/er/key")
    store.download("deep/er/key", tmp_path / "new folder" / "out")
    assert (tmp_path / "new folder" / "out").read_bytes() == bytes(range(256))


def test_keys_are_sorted_and_start_with_the_prefix(store: LocalStore) -> None:
    for key in ("runs/b/2", "runs/a/1", "runs/ab", "other"):
        store.write(key, b"")
    assert list(store.keys("")) == ["other", "runs/a/1", "runs/ab", "runs/b/2"]
    assert list(store.keys("runs/a")) == ["runs/a/1", "runs/ab"]
    assert list(store.keys("runs/a/")) == ["runs/a/1"]
    assert list(store.keys("nothing/")) == []


def test_a_failed_upload_leaves_no_trace(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.upload(tmp_path / "not there", "key")
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/hostname", "", "."])
def test_a_key_cannot_leave_the_folder(store: LocalStore, key: str) -> None:
    with pytest.raises(ValueError, match="leaves the store's folder"):
        store.write(key, b"")


def test_open_store_takes_the_default_folder(tmp_path: Path) -> None:
    store = open_store(StorageConfig(), tmp_path / "default")
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path / "default"


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_open_store_takes_a_folder(tmp_path: Path, scheme: str) -> None:
    store = open_store(StorageConfig(uri=f"{scheme}{tmp_path}/mine"), tmp_path / "default")
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path / "mine"


def test_open_store_takes_a_bucket(tmp_path: Path) -> None:
    store = open_store(StorageConfig(uri="s3://bucket/some/prefix/", region="eu-west-1"), tmp_path)
    assert isinstance(store, S3Store)
    assert store.uri("key") == "s3://bucket/some/prefix/key"


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://", "http://host/x"])
def test_open_store_refuses_other_addresses(tmp_path: Path, uri: str) -> None:
    with pytest.raises(UserError, match=r"use a folder or s3://bucket/prefix"):
        open_store(StorageConfig(uri=uri), tmp_path)


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    for name in ("a#b", "what?", "50%20;x"):
        store = open_store(StorageConfig(uri=str(tmp_path / name / "store")), Path())
        store.write("k", b"v")
        assert (tmp_path / name / "store" / "k").read_bytes() == b"v"
    spaced = open_store(StorageConfig(uri=(tmp_path / "with space").as_uri()), Path())
    spaced.write("k", b"v")
    assert (tmp_path / "with space" / "k").read_bytes() == b"v"
