"""Put a dump of MLflow's database into the bucket, or fetch one. Runs in the jobs mlflow-backup and mlflow-restore.

BUCKET and BACKUP_PREFIX say where; address and keys come from boto3's own variables. A dump carries its sha256 as
metadata and is refused if that is no longer its own: a bad backup is found out before it replaces anything.
"""

import hashlib
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3


def upload(path: Path) -> str:
    """Store ``path`` under the time of now, check what arrived, and delete what is too old. Returns the key."""
    s3, bucket, now = boto3.client("s3"), os.environ["BUCKET"], datetime.now(UTC)
    key = f"{os.environ['BACKUP_PREFIX']}{now:%Y-%m-%dT%H%M%SZ}.dump"
    s3.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {"sha256": _sha256(path)}})
    stored = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
    if stored != path.stat().st_size:
        raise SystemExit(f"{key}: {stored} bytes arrived of {path.stat().st_size}; nothing older was deleted")
    oldest = now - timedelta(days=int(os.environ["BACKUP_KEEP_DAYS"]))
    for backup in _backups(s3, bucket):
        if backup["LastModified"] < oldest and backup["Key"] != key:
            s3.delete_object(Bucket=bucket, Key=backup["Key"])
    return key


def download(path: Path) -> str:
    """Fetch the dump named by BACKUP_KEY, or the newest one, to ``path``. Returns the key."""
    s3, bucket = boto3.client("s3"), os.environ["BUCKET"]
    keys = [backup["Key"] for backup in _backups(s3, bucket)]
    if not keys:
        raise SystemExit(f"s3://{bucket}/{os.environ['BACKUP_PREFIX']} holds no backup")
    key = os.environ.get("BACKUP_KEY") or max(keys)
    s3.download_file(bucket, key, str(path))
    noted = s3.head_object(Bucket=bucket, Key=key)["Metadata"].get("sha256")
    if _sha256(path) != noted:
        path.unlink()
        raise SystemExit(f"{key} is damaged: it does not have the sha256 noted at its upload; take an older one")
    return key


def _backups(s3: Any, bucket: str) -> list[dict[str, Any]]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=os.environ["BACKUP_PREFIX"])
    return [found for page in pages for found in page.get("Contents", [])]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    print({"upload": upload, "download": download}[sys.argv[1]](Path(sys.argv[2])))
