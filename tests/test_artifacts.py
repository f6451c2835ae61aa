"""Artifacts: whole or not there at all, addressed by what they are made from, known by what they hold."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest

from components.artifacts import Artifact, digest_of, find, key_of, load, publish
from components.config import StorageConfig
from components.errors import UserError
from components.git_sha import git_sha
from components.object_store import LocalStore, ObjectStore
from components.s3_store import S3Store

FILES = {"a.txt": b"one", "deep/b.bin": bytes(range(256))}


def write_files(folder: Path) -> Mapping[str, Any]:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return {"loss": 0.5}


class Logged(LocalStore):
    """A local store that notes what is written, and fails where told to."""

    def __init__(self, root: Path, *, fail_at: str = "") -> None:
        super().__init__(root)
        self.written: list[str] = []
        self.fail_at = fail_at

    def write(self, key: str, data: bytes) -> None:
        self._note(key)
        super().write(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._note(key)
        super().create(key, data)

    def upload(self, path: Path, key: str) -> None:
        self._note(key)
        super().upload(path, key)

    def _note(self, key: str) -> None:
        if self.fail_at and key.endswith(self.fail_at):
            raise OSError("disk full")
        self.written.append(key)


@pytest.fixture
def store(tmp_path: Path) -> Logged:
    return Logged(tmp_path / "store")


def test_files_come_back_with_inputs_and_facts(store: Logged) -> None:
    made = publish(store, "features", {"dim": 4}, write_files)
    found = find(store, made.key)
    assert found == made
    assert found is not None
    assert {name: (found.folder / name).read_bytes() for name in FILES} == FILES
    assert found.inputs == {"dim": 4}
    assert found.facts == {"loss": 0.5}
    assert found.manifest["kind"] == "features"
    assert found.manifest["files"]["a.txt"] == {
        "sha256": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
        "size": 3,
    }
    assert set(found.manifest["made_by"]) >= {"loraloom", "git_sha", "python", "torch", "peft"}


def test_the_manifest_is_written_last(store: Logged) -> None:
    made = publish(store, "features", {}, write_files)
    assert store.written[-1] == f"{made.key}/manifest.json"
    assert len(store.written) == 3


@pytest.mark.parametrize("fail_at", ["a.txt", "b.bin", "manifest.json"])
def test_a_failed_upload_leaves_no_artifact_and_can_be_made_up_for(tmp_path: Path, fail_at: str) -> None:
    broken = Logged(tmp_path / "store", fail_at=fail_at)
    with pytest.raises(OSError, match="disk full"):
        publish(broken, "features", {}, write_files)
    store, key = LocalStore(tmp_path / "store"), key_of("features", {})
    assert find(store, key) is None
    assert publish(store, "features", {}, write_files) == find(store, key)


def test_work_that_raises_leaves_nothing(store: Logged) -> None:
    def write(folder: Path) -> Mapping[str, Any]:
        write_files(folder)
        raise UserError("training diverged")

    with pytest.raises(UserError, match="diverged"):
        publish(store, "adapter", {}, write)
    assert find(store, key_of("adapter", {})) is None
    assert store.written == []


def test_files_without_a_manifest_are_no_artifact(store: Logged) -> None:
    made = publish(store, "features", {}, write_files)
    store.delete(f"{made.key}/manifest.json")
    assert find(store, made.key) is None
    with pytest.raises(UserError, match=rf"(?s)no finished artifact at file://.*/{made.key}.*-> run the pipeline"):
        load(store, made.key)


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_file_is_named_with_a_remedy_that_works(store: Logged, damage: str) -> None:
    made = publish(store, "features", {}, write_files)
    path = made.folder / "deep" / "b.bin"
    path.unlink()
    if damage == "changed":
        path.write_bytes(b"else")
    with pytest.raises(UserError) as caught:
        find(store, made.key)
    assert f"{made.key}/{made.manifest['folder']}/deep/b.bin does not match" in caught.value.what
    assert caught.value.remedy == f"delete {store.uri(made.key)} and run again; only this artifact is made anew"
    shutil.rmtree(store.root / made.key)
    assert publish(store, "features", {}, write_files).digest == made.digest


def test_the_key_follows_the_inputs() -> None:
    base = key_of("features", {"dim": 4, "rows": 200})
    assert base == key_of("features", {"rows": 200, "dim": 4})
    assert base.startswith("features/")
    assert len(base) == len("features/") + 32
    others = {
        key_of("features", {"dim": 5, "rows": 200}),
        key_of("features", {"dim": 4}),
        key_of("logits", {"dim": 4, "rows": 200}),
    }
    assert len(others | {base}) == 4


def test_the_digest_follows_names_and_contents_only(store: Logged) -> None:
    def write(folder: Path) -> Mapping[str, Any]:
        write_files(folder)
        return {"loss": 0.7, "seconds": 12}

    def renamed(folder: Path) -> Mapping[str, Any]:
        write_files(folder)
        (folder / "a.txt").rename(folder / "c.txt")
        return {}

    def changed(folder: Path) -> Mapping[str, Any]:
        write_files(folder)
        (folder / "a.txt").write_bytes(b"two")
        return {}

    one, same = publish(store, "x", {"seed": 1}, write_files), publish(store, "x", {"seed": 2}, write)
    assert one.key != same.key
    assert one.digest == same.digest
    assert len({one.digest, *(publish(store, "y", {"of": w.__name__}, w).digest for w in (renamed, changed))}) == 3


def test_equal_values_have_equal_digests() -> None:
    assert digest_of({"a": [1, 2], "b": "ä"}) == digest_of({"b": "ä", "a": (1, 2)})
    assert digest_of(1.0) != digest_of("1.0")
    assert digest_of({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Store:
    """A store in a bucket; the cache of this machine is empty."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="bucket")
    return S3Store("bucket", "team", StorageConfig(endpoint_url=endpoint))


@pytest.fixture
def cache(bucket: S3Store) -> Path:
    """The folder of this user's local copies of what is in a bucket."""
    return Path(tempfile.gettempdir()) / f"loraloom-cache-{os.getuid()}"


def contents(artifact: Artifact) -> dict[str, bytes]:
    paths = [path for path in artifact.folder.rglob("*") if path.is_file()]
    return {path.relative_to(artifact.folder).as_posix(): path.read_bytes() for path in paths}


def data_key(store: S3Store, key: str, name: str) -> str:
    return next(found for found in store.keys(f"{key}/") if found.endswith(name))


def test_a_bucket_gives_back_what_it_got(bucket: S3Store) -> None:
    made = publish(bucket, "features", {"dim": 4}, write_files)
    assert contents(made) == FILES
    assert find(bucket, key_of("features", {"dim": 4})) == made


def test_files_are_brought_from_a_bucket_once(bucket: S3Store, cache: Path) -> None:
    made = publish(bucket, "features", {}, write_files)
    shutil.rmtree(made.folder)
    assert contents(load(bucket, made.key)) == FILES
    bucket.delete(data_key(bucket, made.key, "a.txt"))
    assert contents(load(bucket, made.key)) == FILES  # nothing was asked for again
    assert [path.name for path in cache.iterdir()] == [made.digest]


def test_what_was_just_published_is_not_brought_back(bucket: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[str] = []
    monkeypatch.setattr(bucket, "download", lambda key, path: brought.append(key))
    assert contents(publish(bucket, "features", {}, write_files)) == FILES
    assert brought == []


def test_local_copies_are_the_users_own(bucket: S3Store, cache: Path) -> None:
    publish(bucket, "features", {}, write_files)
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_damaged_cache_is_brought_anew(bucket: S3Store) -> None:
    made = publish(bucket, "features", {}, write_files)
    (made.folder / "a.txt").write_bytes(b"half")
    assert contents(load(bucket, made.key)) == FILES


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_object_is_named_and_never_cached(bucket: S3Store, cache: Path, damage: str) -> None:
    made = publish(bucket, "features", {}, write_files)
    shutil.rmtree(cache)
    key = data_key(bucket, made.key, "b.bin")
    if damage == "changed":
        bucket.write(key, b"else")
    else:
        bucket.delete(key)
    with pytest.raises(UserError, match=r"(?s)b.bin does not match the checksum.*-> delete s3://"):
        load(bucket, made.key)
    assert list(cache.iterdir()) == []
    for found in list(bucket.keys(made.key)):
        bucket.delete(found)
    assert contents(publish(bucket, "features", {}, write_files)) == FILES


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_the_first_result_of_a_work_stays(kind: str, request: pytest.FixtureRequest) -> None:
    store: ObjectStore = request.getfixturevalue({"folder": "store"}.get(kind, kind))

    def other(folder: Path) -> Mapping[str, Any]:
        (folder / "a.txt").write_bytes(b"rounded otherwise")
        return {"loss": 0.4}

    first = publish(store, "features", {}, write_files)
    assert publish(store, "features", {}, other) == first == load(store, first.key)
    assert contents(first) == FILES


def test_an_artifact_without_files_is_its_facts(store: Logged, bucket: S3Store) -> None:
    for each in (store, bucket):
        made = publish(each, "features", {}, lambda folder: {"loss": 0.5})
        assert (made.facts, made.folder.is_dir()) == ({"loss": 0.5}, True)
        assert made.manifest["files"] == {}


def test_files_beside_the_manifest_are_found(store: Logged) -> None:
    """Artifacts were laid out so before files got a folder of their own."""
    made = publish(store, "features", {}, write_files)
    old = {key: value for key, value in made.manifest.items() if key != "folder"}
    for name, data in FILES.items():
        store.write(f"old/{name}", data)
    store.write("old/manifest.json", json.dumps(old).encode())
    assert contents(load(store, "old")) == FILES | {"manifest.json": json.dumps(old).encode()}


PUBLISH = """
import sys, time
from pathlib import Path
from components.artifacts import publish
from components.config import StorageConfig
from components.object_store import open_store

here, mine, uri, endpoint = Path(sys.argv[1]), *sys.argv[2:]
store = open_store(StorageConfig(uri=uri, endpoint_url=endpoint or None), here)

def write(folder):
    for name in range(10):
        (folder / f"{name}.txt").write_text(f"{mine} {name} " * 1000)
    return {"by": mine}

(here / f"ready-{mine}").touch()
while len(list(here.glob("ready-*"))) < 2:
    time.sleep(0.001)
for number in range(6):
    print(publish(store, "kind", {}, write, key=f"kind/{number}").facts["by"])
"""


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_two_processes_with_different_results_for_one_key_leave_one_whole_artifact(
    kind: str, tmp_path: Path, endpoint: str, request: pytest.FixtureRequest
) -> None:
    store: ObjectStore = request.getfixturevalue("bucket") if kind == "bucket" else LocalStore(tmp_path / "store")
    where = ["s3://bucket/team", endpoint] if kind == "bucket" else [str(tmp_path / "store"), ""]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, str(tmp_path), mine, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for mine in ("one", "two")
    ]
    ended = [process.communicate(timeout=60) for process in processes]
    assert [errors.decode() for _, errors in ended] == ["", ""]
    seen = [output.decode().split() for output, _ in ended]
    assert seen[0] == seen[1]  # both were given the same result, whoever's it is
    for number, by in enumerate(seen[0]):
        made = load(store, f"kind/{number}")
        assert contents(made) == {f"{name}.txt": (f"{by} {name} " * 1000).encode() for name in range(10)}


def test_the_manifest_can_be_read_by_others(store: Logged) -> None:
    made = publish(store, "features", {"dim": 4}, write_files)
    manifest = json.loads(store.read(f"{made.key}/manifest.json"))
    assert manifest == made.manifest
    assert manifest["digest"] == digest_of({name: entry["sha256"] for name, entry in manifest["files"].items()})


def test_the_commit_is_that_of_this_code_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORALOOM_GIT_SHA", raising=False)
    git_sha.cache_clear()
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", git_sha())
    monkeypatch.setenv("PATH", "")  # a machine without git
    git_sha.cache_clear()
    assert git_sha() == "unknown"
    monkeypatch.setenv("LORALOOM_GIT_SHA", "c0ffee")
    git_sha.cache_clear()
    assert git_sha() == "c0ffee"
    git_sha.cache_clear()
