"""Self-describing artifact folders.

An artifact is a folder whose ``manifest.json`` is written last: no manifest, no artifact. The manifest names the kind,
the inputs the artifact was made from (its *key*: the content address of the work), every file with size and sha256,
and a digest over the files (the content address of the *result*). Keys decide reuse; digests prove identity.
"""

import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components import __version__
from components.errors import UserError
from components.object_store import LocalStore, ObjectStore

SCHEMA_VERSION = 1
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
    """
    key = key or key_of(kind, inputs)
    with tempfile.TemporaryDirectory(prefix="loraloom-") as temporary:
        folder = Path(temporary)
        facts = dict(write(folder))
        manifest = _manifest(kind, inputs, facts, folder)
        for name in manifest["files"]:
            store.upload(folder / name, f"{key}/{name}")
        store.write(f"{key}/{MANIFEST}", json.dumps(manifest, indent=1, sort_keys=True).encode())
    return load(store, key)


def find(store: ObjectStore, key: str) -> Artifact | None:
    """The artifact under ``key``, or None where none is finished."""
    return load(store, key) if store.exists(f"{key}/{MANIFEST}") else None


def load(store: ObjectStore, key: str) -> Artifact:
    """A verified local copy of the artifact under ``key``.

    Raises:
        UserError: there is none, or a file does not match its checksum.
    """
    try:
        manifest = json.loads(store.read(f"{key}/{MANIFEST}"))
    except KeyError:
        raise UserError(f"no finished artifact at {store.uri(key)}", remedy="run the pipeline again") from None
    folder = store.root / key if isinstance(store, LocalStore) else _cached(store, key, manifest)
    if damaged := _damaged(folder, manifest):
        if not isinstance(store, LocalStore):
            shutil.rmtree(folder)
        raise UserError(
            f"{store.uri(f'{key}/{damaged[0]}')} does not match the checksum in its manifest",
            remedy=f"delete {store.uri(key)} and run again; only this artifact is made anew",
        )
    return Artifact(key, manifest["digest"], folder, manifest)


def _damaged(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Files that are missing in ``folder`` or are not what the manifest says."""
    return [
        name
        for name, expected in manifest["files"].items()
        if not (folder / name).is_file() or file_digest(folder / name) != expected["sha256"]
    ]


def _manifest(kind: str, inputs: Mapping[str, Any], facts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        path.relative_to(folder).as_posix(): {"sha256": file_digest(path), "size": path.stat().st_size}
        for path in paths
    }
    return {
        "kind": kind,
        "schema": SCHEMA_VERSION,
        "digest": digest_of({name: entry["sha256"] for name, entry in files.items()}),
        "files": files,
        "inputs": dict(inputs),
        "facts": dict(facts),
        "made_by": {
            "loraloom": __version__,
            "git_sha": git_sha(),
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    }


def git_sha() -> str:
    """The commit this code is at: from the image's environment, else from git, else 'unknown'."""
    import os
    import subprocess

    if sha := os.environ.get("LORALOOM_GIT_SHA"):
        return sha
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"


def _cached(store: ObjectStore, key: str, manifest: Mapping[str, Any]) -> Path:
    """A copy on this machine, brought from the store once.

    The folder's name is the digest, so it can never be stale; but whoever tidies temporary folders may have damaged it.
    """
    target = Path(tempfile.gettempdir()) / "loraloom-cache" / manifest["digest"]
    if target.is_dir() and not _damaged(target, manifest):
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(dir=target.parent))
    for name in manifest["files"]:
        with suppress(KeyError):  # a file that is missing is found by its checksum
            store.download(f"{key}/{name}", incoming / name)
    try:
        incoming.rename(target)
    except OSError:  # another process was first with the same bytes
        shutil.rmtree(incoming)
    return target
