"""Where artifacts live: a local folder or an S3 bucket behind one small interface.

Keys are relative, slash-separated paths. Nothing half-written is ever visible under a key: the local store writes
beside the target and renames, S3 makes an object visible only when its upload is complete.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

from components.config import StorageConfig
from components.errors import UserError


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

    def upload(self, path: Path, key: str) -> None:
        """Put a file under ``key`` without reading it into memory."""

    def download(self, key: str, path: Path) -> None:
        """Write the object to ``path``. Raises ``KeyError`` where there is none."""

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys that start with ``prefix``, sorted."""

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""


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
        with self._beside(key) as temporary:
            temporary.write_bytes(data)

    def upload(self, path: Path, key: str) -> None:
        """See :meth:`ObjectStore.upload`."""
        with self._beside(key) as temporary:
            shutil.copyfile(path, temporary)

    def download(self, key: str, path: Path) -> None:
        """See :meth:`ObjectStore.download`."""
        if not self.exists(key):
            raise KeyError(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._path(key), path)

    def keys(self, prefix: str) -> Iterator[str]:
        """See :meth:`ObjectStore.keys`."""
        # Walk only the deepest folder the prefix names: a store holds many runs.
        top = self.root / prefix.rpartition("/")[0]
        found = (path.relative_to(self.root).as_posix() for path in top.rglob("*") if path.is_file())
        return iter(sorted(key for key in found if key.startswith(prefix) and not key.endswith(".part")))

    def delete(self, key: str) -> None:
        """See :meth:`ObjectStore.delete`."""
        self._path(key).unlink(missing_ok=True)

    def _beside(self, key: str) -> "_Replace":
        return _Replace(self._path(key))


class _Replace:
    """Write a file beside its target; on success rename it over the target, on failure leave no trace."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Path:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.target.parent, suffix=".part")
        os.close(handle)
        self.temporary = Path(name)
        return self.temporary

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None:
            self.temporary.replace(self.target)
        else:
            self.temporary.unlink(missing_ok=True)


def open_store(storage: StorageConfig, default: Path) -> ObjectStore:
    """The store that the config names; ``default`` is the folder used where it names none.

    Raises:
        UserError: the address is neither a folder nor ``s3://bucket/prefix``.
    """
    if storage.uri is None:
        return LocalStore(default)
    parsed = urlparse(storage.uri)
    if parsed.scheme in ("", "file"):
        return LocalStore(Path(parsed.path))
    if parsed.scheme == "s3" and parsed.netloc:
        from components.s3_store import S3Store

        return S3Store(bucket=parsed.netloc, prefix=parsed.path.strip("/"), storage=storage)
    raise UserError(
        f"storage.uri is {storage.uri!r}", remedy="use a folder or s3://bucket/prefix, or leave it out for a local run"
    )
