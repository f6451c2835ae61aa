"""Artifacts: whole or not there at all, addressed by what they are made from, known by what they hold."""

import json
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
from components.object_store import LocalStore
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
    assert f"{made.folder.relative_to(store.root)}/deep/b.bin does not match" in caught.value.what
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


PUBLISH = """
import sys, time
from pathlib import Path
from components.artifacts import publish
from components.object_store import LocalStore

root, mine = Path(sys.argv[1]), sys.argv[2]

def write(folder):
    for name in range(20):
        (folder / f"{name}.txt").write_text(f"{name} " * 1000)
    return {"by": mine}

(root / f"ready-{mine}").touch()
while len(list(root.glob("ready-*"))) < 2:
    time.sleep(0.001)
for _ in range(10):
    publish(LocalStore(root / "store"), "kind", {}, write, key="kind/same")
"""


def test_two_processes_with_the_same_key_leave_one_whole_artifact(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PUBLISH, str(tmp_path), mine], stderr=subprocess.PIPE)
        for mine in ("one", "two")
    ]
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert errors == ["", ""]
    made = load(LocalStore(tmp_path / "store"), "kind/same")
    assert made.facts["by"] in ("one", "two")
    assert [(made.folder / f"{name}.txt").read_text() for name in range(20)] == [f"{n} " * 1000 for n in range(20)]


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


def contents(artifact: Artifact) -> dict[str, bytes]:
    paths = [path for path in artifact.folder.rglob("*") if path.is_file()]
    return {path.relative_to(artifact.folder).as_posix(): path.read_bytes() for path in paths}


def data_key(store: S3Store, key: str, name: str) -> str:
    return next(found for found in store.keys(f"{key}/") if found.endswith(name))


def test_a_bucket_gives_back_what_it_got(bucket: S3Store) -> None:
    made = publish(bucket, "features", {"dim": 4}, write_files)
    assert contents(made) == FILES
    assert find(bucket, key_of("features", {"dim": 4})) == made


def test_files_are_brought_from_a_bucket_once(bucket: S3Store, tmp_path: Path) -> None:
    made = publish(bucket, "features", {}, write_files)
    bucket.delete(data_key(bucket, made.key, "a.txt"))
    assert contents(load(bucket, made.key)) == FILES  # nothing was asked for again
    assert [path.name for path in (tmp_path / "loraloom-cache").iterdir()] == [made.digest]


def test_a_damaged_cache_is_brought_anew(bucket: S3Store) -> None:
    made = publish(bucket, "features", {}, write_files)
    (made.folder / "a.txt").write_bytes(b"half")
    assert contents(load(bucket, made.key)) == FILES


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_object_is_named_and_never_cached(bucket: S3Store, tmp_path: Path, damage: str) -> None:
    made = publish(bucket, "features", {}, write_files)
    shutil.rmtree(tmp_path / "loraloom-cache")
    key = data_key(bucket, made.key, "b.bin")
    if damage == "changed":
        bucket.write(key, b"else")
    else:
        bucket.delete(key)
    with pytest.raises(UserError, match=r"(?s)b.bin does not match the checksum.*-> delete s3://"):
        load(bucket, made.key)
    assert list((tmp_path / "loraloom-cache").iterdir()) == []
    for found in list(bucket.keys(made.key)):
        bucket.delete(found)
    assert contents(publish(bucket, "features", {}, write_files)) == FILES


def test_the_manifest_can_be_read_by_others(store: Logged) -> None:
    made = publish(store, "features", {"dim": 4}, write_files)
    manifest = json.loads(store.read(f"{made.key}/manifest.json"))
    assert manifest == made.manifest
    assert manifest["digest"] == digest_of({name: entry["sha256"] for name, entry in manifest["files"].items()})
