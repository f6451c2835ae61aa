"""Self-describing artifact folders.

An artifact is a folder whose ``manifest.json`` is written last: no manifest, no artifact. The manifest names the kind,
the inputs the artifact was made from (its *key*: the content address of the work), every file with size and sha256,
and a digest over the files (the content address of the *result*). Keys decide reuse; digests prove identity.

Two processes may do the same work and get different bytes, a GPU being what it is. So the files stand in a subfolder
named after their digest, where nobody else's can get among them, and the first manifest stays: what was read under
a key once is read there ever after. That needs no lock, and no more of a store than that an object is written whole.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components import __version__
from components.errors import UserError
from components.git_sha import git_sha
from components.inside import inside
from components.object_store import LocalStore, ObjectStore

SCHEMA_VERSION = 8
MANIFEST = "manifest.json"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "numpy")


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on this machine.

    Attributes:
        key: where it stands in the store, ``<kind>/<32 hex digits>`` or deeper.
        digest: sha256 over its files' names and contents.
        folder: a local copy, verified against the manifest; do not write into it.
        manifest: the parsed manifest.
    """

    key: str
    digest: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def inputs(self) -> dict[str, Any]:
        """What the artifact was made from."""
        return self.manifest["inputs"]

    @property
    def facts(self) -> dict[str, Any]:
        """What was found out while making it: counts, losses, costs."""
        return self.manifest["facts"]

    @property
    def seconds(self) -> float | None:
        """How long making it took; None for artifacts of earlier versions. Not part of the content."""
        return self.manifest.get("seconds")


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """sha256 of a JSON-able value, 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def key_of(kind: str, inputs: Mapping[str, Any]) -> str:
    """The content address of the work that makes an artifact of ``kind`` from ``inputs``."""
    return f"{kind}/{digest_of({'kind': kind, 'schema': SCHEMA_VERSION, 'inputs': inputs})[:32]}"


def publish(
    store: ObjectStore,
    kind: str,
    inputs: Mapping[str, Any],
    write: Callable[[Path], Mapping[str, Any]],
    *,
    key: str = "",
) -> Artifact:
    """Make an artifact and put it into the store, files first, manifest last.

    Args:
        write: fills the empty folder it is given and returns the artifact's facts (JSON-able).
        key: the store key, by default :func:`key_of` of kind and inputs.

    Returns:
        What stands under the key then: where another process was first with the same work, that one's result.
    """
    key = key or key_of(kind, inputs)
    with _made(store, kind, inputs, write, key) as (manifest, folder):
        if not isinstance(store, LocalStore):
            _rename(folder, _cache() / manifest["digest"])  # spares bringing it back
    return load(store, key)


def put(
    store: ObjectStore,
    kind: str,
    inputs: Mapping[str, Any],
    write: Callable[[Path], Mapping[str, Any]],
    *,
    key: str = "",
) -> str:
    """As :func:`publish`, without a copy on this machine (``write`` may put links there); returns the key."""
    key = key or key_of(kind, inputs)
    with _made(store, kind, inputs, write, key):
        return key


@contextmanager
def _made(
    store: ObjectStore, kind: str, inputs: Mapping[str, Any], write: Callable[[Path], Mapping[str, Any]], key: str
) -> Iterator[tuple[dict[str, Any], Path]]:
    """Make and upload an artifact; yields its manifest and the temporary folder with its files."""
    with tempfile.TemporaryDirectory(prefix="loraloom-") as temporary:
        folder = Path(temporary) / "files"
        folder.mkdir()
        manifest = _describe(kind, inputs, write, folder)
        _upload(store, key, manifest, folder)
        yield manifest, folder


def find(store: ObjectStore, key: str) -> Artifact | None:
    """The artifact under ``key``, or None where none is finished."""
    return load(store, key) if store.exists(f"{key}/{MANIFEST}") else None


def load(store: ObjectStore, key: str, wanted: Callable[[str], bool] | None = None) -> Artifact:
    """A verified local copy of the artifact under ``key``.

    Args:
        wanted: by name, which files to bring and check; manifest and digest are then of these only.

    Raises:
        UserError: there is none, its manifest is not its own, or a file does not match its checksum.
    """
    try:
        manifest = json.loads(store.read(f"{key}/{MANIFEST}"))
    except KeyError:
        raise UserError(f"no finished artifact at {store.uri(key)}", remedy="run the pipeline again") from None
    if not _is_sound(manifest):
        raise UserError(
            f"{store.uri(key)}/{MANIFEST} contradicts itself: its digest is not that of the files it names",
            remedy=f"delete {store.uri(key)} and run again; only this artifact is made anew",
        )
    files = _files(key, manifest)
    if wanted is not None:
        part = {name: entry for name, entry in manifest["files"].items() if wanted(name)}
        manifest |= {"files": part, "digest": _digest(part)}
    if isinstance(store, LocalStore):
        folder = store.root / files
        damaged = _damaged(folder, manifest)
    else:
        folder, damaged = _cached(store, files, manifest)
    if damaged:
        raise UserError(
            f"{store.uri(f'{files}/{damaged[0]}')} does not match the checksum in its manifest",
            remedy=f"delete {store.uri(key)} and run again; only this artifact is made anew",
        )
    return Artifact(key, manifest["digest"], folder, manifest)


def _damaged(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Files that are missing in ``folder`` or are not what the manifest says."""
    return [
        name
        for name, expected in manifest["files"].items()
        if not inside(folder, name).is_file() or file_digest(folder / name) != expected["sha256"]
    ]


def _describe(
    kind: str, inputs: Mapping[str, Any], write: Callable[[Path], Mapping[str, Any]], folder: Path
) -> dict[str, Any]:
    """Let ``write`` fill the folder; the manifest of what is in it then."""
    started = time.monotonic()
    facts = dict(write(folder))
    seconds = time.monotonic() - started
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        path.relative_to(folder).as_posix(): {"sha256": file_digest(path), "size": path.stat().st_size}
        for path in paths
    }
    digest = _digest(files)
    return {
        "kind": kind,
        "schema": SCHEMA_VERSION,
        "digest": digest,
        "folder": digest[:16] if files else "",
        "files": files,
        "inputs": dict(inputs),
        "facts": facts,
        "seconds": round(seconds, 3),
        "made_by": {
            "loraloom": __version__,
            "git_sha": git_sha(),
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    }


def _digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    return digest_of({name: entry["sha256"] for name, entry in files.items()})


def _is_sound(manifest: Mapping[str, Any]) -> bool:
    """Whether the digest, which names folders here and in the store, is really that of the files."""
    digest = _digest(manifest["files"])
    return manifest["digest"] == digest and manifest.get("folder", "") in ("", digest[:16])


def _upload(store: ObjectStore, key: str, manifest: Mapping[str, Any], folder: Path) -> None:
    """Put what the manifest names into the store, and then the manifest, unless the key has one already."""
    for name in manifest["files"]:
        store.upload(folder / name, f"{_files(key, manifest)}/{name}")
    store.create(f"{key}/{MANIFEST}", json.dumps(manifest, indent=1, sort_keys=True).encode())


def files_key(store: ObjectStore, key: str) -> str:
    """The key below which a finished artifact's files stand, for whoever reads them without :func:`load`."""
    return _files(key, json.loads(store.read(f"{key}/{MANIFEST}")))


def _files(key: str, manifest: Mapping[str, Any]) -> str:
    """The key's subfolder that holds the files. Those of early artifacts lie beside the manifest."""
    return f"{key}/{manifest.get('folder', '')}".rstrip("/")


def _cache() -> Path:
    """The folder of this user's local copies, made if need be."""
    folder = Path(tempfile.gettempdir()) / f"loraloom-cache-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _cached(store: ObjectStore, files: str, manifest: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """A copy on this machine, brought from the store once, and what is damaged even in a fresh one.

    The folder's name is the digest, so it can never be stale; but whoever tidies temporary folders may have damaged it.
    """
    target = _cache() / manifest["digest"]
    if target.is_dir() and not _damaged(target, manifest):
        return target, []
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="loraloom-") as temporary:
        incoming = Path(temporary) / "files"
        incoming.mkdir()
        for name in manifest["files"]:
            with suppress(KeyError):  # a file that is missing is found by its checksum
                store.download(f"{files}/{name}", inside(incoming, name))
        damaged = _damaged(incoming, manifest)
        if not damaged:
            _rename(incoming, target)
    return target, damaged


def _rename(folder: Path, target: Path) -> None:
    """Make ``folder`` the copy at ``target``, unless another process was first with the same bytes."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
