"""Where artifacts live: a local folder or an S3 bucket behind one small interface.

Keys are relative, slash-separated paths. Nothing half-written is ever visible under a key: the local store writes
beside the target and renames, S3 makes an object visible only when its upload is complete.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlparse

from components.config import StorageConfig
from components.errors import UserError

PART = ".part"  # ends the names of files that are still being written


@dataclass(frozen=True)
class Entry:
    """One object of a listing: its key, its size in bytes, and when it was written (with a time zone)."""

    key: str
    size: int
    modified: datetime


class ObjectStore(Protocol):
    """What the rest of loraloom asks of a store."""

    def uri(self, key: str) -> str:
        """The key's full address, for people and for MLflow."""

    def exists(self, key: str) -> bool:
        """Whether an object stands under ``key``."""

    def read(self, key: str) -> bytes:
        """The object's bytes. Raises ``KeyError`` where there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Put ``data`` under ``key``, replacing what was there."""

    def create(self, key: str, data: bytes) -> None:
        """Put ``data`` under ``key`` unless something stands there, which then stays.

        Where several processes do so at once, each finds one whole object afterwards, and all find the same one; only
        a server whose conditional writes are not atomic (Swift) may still replace it while they are at it.
        """

    def upload(self, path: Path, key: str) -> None:
        """Put a file under ``key`` without reading it into memory."""

    def download(self, key: str, path: Path) -> None:
        """Write the object to ``path``, which appears when it is complete. Raises ``KeyError`` where there is none."""

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys that start with ``prefix``, sorted."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """As :meth:`keys`, with size and time."""

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""

    def link(self, key: str, seconds: int, content_type: str) -> str:
        """A web address that anyone can read the object at for so long, without credentials.

        Raises:
            UserError: this store gives no such links.
        """


class LocalStore:
    """A folder as an object store; its methods are those of :class:`ObjectStore`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root) or path == self.root:
            raise ValueError(f"the key {key!r} leaves the store's folder")
        return path

    def uri(self, key: str) -> str:
        """See :meth:`ObjectStore.uri`."""
        return self._path(key).as_uri()

    def exists(self, key: str) -> bool:
        """See :meth:`ObjectStore.exists`."""
        return self._path(key).is_file()

    def read(self, key: str) -> bytes:
        """See :meth:`ObjectStore.read`."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def write(self, key: str, data: bytes) -> None:
        """See :meth:`ObjectStore.write`."""
        with _replacing(self._path(key)) as temporary:
            temporary.write_bytes(data)

    def create(self, key: str, data: bytes) -> None:
        """See :meth:`ObjectStore.create`."""
        target = self._path(key)
        with _beside(target) as temporary:
            temporary.write_bytes(data)
            with suppress(FileExistsError):
                os.link(temporary, target)  # a rename would replace what is there

    def upload(self, path: Path, key: str) -> None:
        """See :meth:`ObjectStore.upload`."""
        with _replacing(self._path(key)) as temporary:
            shutil.copyfile(path, temporary)

    def download(self, key: str, path: Path) -> None:
        """See :meth:`ObjectStore.download`."""
        with _replacing(path) as temporary:
            try:
                shutil.copyfile(self._path(key), temporary)
            except FileNotFoundError:
                raise KeyError(key) from None

    def keys(self, prefix: str) -> Iterator[str]:
        """See :meth:`ObjectStore.keys`."""
        # Walk only the deepest folder the prefix names: a store holds many runs.
        top = self.root / prefix.rpartition("/")[0]
        found = (path.relative_to(self.root).as_posix() for path in top.rglob("*") if path.is_file())
        return iter(sorted(key for key in found if key.startswith(prefix) and not key.endswith(PART)))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See :meth:`ObjectStore.entries`."""
        for key in self.keys(prefix):
            with suppress(FileNotFoundError):  # deleted since it was listed
                status = self._path(key).stat()
                yield Entry(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def delete(self, key: str) -> None:
        """See :meth:`ObjectStore.delete`."""
        self._path(key).unlink(missing_ok=True)

    def link(self, key: str, seconds: int, content_type: str) -> str:
        """See :meth:`ObjectStore.link`."""
        raise UserError(
            f"{self.root} is a folder, which gives no links", remedy="set storage.uri to a bucket, or send the file"
        )


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A name beside ``target`` for a file on its way there; nothing is left under it afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{uuid.uuid4().hex}{PART}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Write a file beside its target; on success it is renamed over the target, on failure it leaves no trace."""
    with _beside(target) as temporary:
        yield temporary
        temporary.replace(target)


def open_store(storage: StorageConfig, default: Path) -> ObjectStore:
    """The store that the config names; ``default`` is the folder used where it names none.

    Raises:
        UserError: the address is neither a folder nor ``s3://bucket/prefix``.
    """
    if storage.uri is None:
        return LocalStore(default)
    if "://" not in storage.uri:  # a path may hold '#' and '?', which an address may not
        return LocalStore(Path(storage.uri))
    parsed = urlparse(storage.uri)
    if parsed.scheme == "file":
        return LocalStore(Path(unquote(parsed.path)))
    if parsed.scheme == "s3" and parsed.netloc:
        from components.s3_store import S3Store

        return S3Store(bucket=parsed.netloc, prefix=parsed.path.strip("/"), storage=storage)
    raise UserError(
        f"storage.uri is {storage.uri!r}", remedy="use a folder or s3://bucket/prefix, or leave it out for a local run"
    )
