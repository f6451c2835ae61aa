"""Backup and restore as the jobs do them: their own commands and script, a real Postgres, a real HTTP S3."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest

from tests.infra.conftest import INFRA
from tests.infra.manifests import Manifest, pods

BUCKET, PREFIX = "loraloom", "backups/mlflow/"
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, INFRA / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket, and the environment that the jobs have."""
    urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    settings = {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "BUCKET": BUCKET,
        "BACKUP_PREFIX": PREFIX,
        "BACKUP_KEEP_DAYS": "30",
        "BACKUP_KEY": "",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    script("components/seaweedfs/create_bucket.py").main()
    return boto3.client("s3")


def keys(bucket: Any) -> list[str]:
    return [found["Key"] for found in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def test_a_bucket_that_exists_is_left_alone(bucket: Any) -> None:
    bucket.put_object(Bucket=BUCKET, Key="kept", Body=b"")
    script("components/seaweedfs/create_bucket.py").main()
    assert keys(bucket) == ["kept"]


def test_what_was_stored_comes_back(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"dump" * 1000)
    key = script("base/backup.py").upload(tmp_path / "out")
    assert keys(bucket) == [key]
    assert key.startswith(PREFIX)
    assert script("base/backup.py").download(tmp_path / "back") == key
    assert (tmp_path / "back").read_bytes() == b"dump" * 1000


def test_the_newest_is_taken_unless_another_is_named(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = script("base/backup.py")
    for day in ("2001-01-03", "2001-01-01", "2001-01-02"):
        (tmp_path / day).write_text(day)
        metadata = {"sha256": backup._sha256(tmp_path / day)}
        bucket.put_object(Bucket=BUCKET, Key=f"{PREFIX}{day}T000000Z.dump", Body=day.encode(), Metadata=metadata)
    backup.download(tmp_path / "back")
    assert (tmp_path / "back").read_text() == "2001-01-03"
    monkeypatch.setenv("BACKUP_KEY", f"{PREFIX}2001-01-01T000000Z.dump")
    backup.download(tmp_path / "back")
    assert (tmp_path / "back").read_text() == "2001-01-01"


def test_a_damaged_dump_is_refused(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"dump")
    backup = script("base/backup.py")
    key = backup.upload(tmp_path / "out")
    noted = bucket.head_object(Bucket=BUCKET, Key=key)["Metadata"]
    bucket.put_object(Bucket=BUCKET, Key=key, Body=b"dumb", Metadata=noted)
    with pytest.raises(SystemExit, match=r"\.dump is damaged"):
        backup.download(tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_no_backup_is_said_plainly(bucket: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="s3://loraloom/backups/mlflow/ holds no backup"):
        script("base/backup.py").download(tmp_path / "back")


def test_only_old_backups_are_deleted_and_never_the_new_one(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").write_bytes(b"dump")
    bucket.put_object(Bucket=BUCKET, Key=f"{PREFIX}2001-01-01T000000Z.dump", Body=b"")
    bucket.put_object(Bucket=BUCKET, Key="mlflow/artifact", Body=b"")
    backup = script("base/backup.py")
    first = backup.upload(tmp_path / "out")
    assert len(keys(bucket)) == 3, "all of them are of today"
    monkeypatch.setenv("BACKUP_KEEP_DAYS", "-1")  # as if today were long ago
    bucket.delete_object(Bucket=BUCKET, Key=first)
    last = backup.upload(tmp_path / "out")
    assert sorted(keys(bucket)) == sorted([last, "mlflow/artifact"])


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Postgres of its own, and libpq's variables for it."""
    if not PROGRAMS:
        pytest.skip("Postgres is not installed (Debian: postgresql)")
    programs, as_user = PROGRAMS[-1].parent, []
    folder = Path(tempfile.mkdtemp(prefix="loraloom-postgres-"))
    if os.geteuid() == 0:  # which Postgres refuses to be
        shutil.chown(folder, "nobody")
        as_user = ["runuser", "-u", "nobody", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def control(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    control("initdb", "--username=mlflow", "--auth=trust", "--encoding=UTF8", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    variables = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "mlflow", "PGDATABASE": "mlflow"}
    for name, value in (variables | {"PATH": f"{programs}:{os.environ['PATH']}"}).items():
        monkeypatch.setenv(name, value)
    subprocess.run(["createdb", "mlflow"], check=True)
    yield
    control("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder)


def run_job(manifests: list[Manifest], name: str, folder: Path) -> None:
    """Run a CronJob's containers one after the other: their commands, with its volumes' paths replaced by folders."""
    (pod,) = (pod for pod in pods(manifests) if pod.owner == f"CronJob/{name}")
    for container in pod.containers:
        command = [
            part.replace("/dump/", f"{folder}/").replace("/scripts/", f"{INFRA}/base/") for part in container["command"]
        ]
        command = [part.replace("$(PGDATABASE)", os.environ["PGDATABASE"]) for part in command]
        if command[0] == "python":
            command[0] = sys.executable
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{container['name']}: {ended.stderr}"


def sql(statement: str) -> str:
    command = ["psql", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", f"--command={statement}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_lost_database_is_restored(
    database: None, bucket: Any, rendered: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    sql("create table runs (id text primary key, score float); insert into runs values ('a', 0.5), ('b', 0.75)")
    run_job(rendered["local"], "mlflow-backup", tmp_path)
    (tmp_path / "mlflow.dump").unlink()
    sql("delete from runs where id = 'a'")
    run_job(rendered["local"], "mlflow-restore", tmp_path)
    assert sql("select id, score from runs order by id").splitlines() == ["a|0.5", "b|0.75"]
    sql("drop table runs cascade")
    run_job(rendered["local"], "mlflow-restore", tmp_path)
    assert sql("select count(*) from runs") == "2"
