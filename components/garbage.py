"""What in the store nothing refers to any more: old feature sets, and checkpoints of jobs that nobody took up again.

Features are by far the largest artifacts, and they can be made again; adapters, logits and the small tables stay, since
versions in the registry are made of them. A feature set is kept while the records of a run name it that is not old yet
or that made a registered version.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from components.artifacts import MANIFEST
from components.object_store import Entry, ObjectStore

KINDS = {"features": "feature set", "checkpoints": "checkpoints"}
FIRST = (f"/{MANIFEST}", "/newest")  # without these the rest counts for nothing: they go first


@dataclass(frozen=True)
class Garbage:
    """A folder of the store that can go.

    Attributes:
        what: for people: 'feature set' or 'checkpoints'.
        folder: its key, ``features/<32 hex digits>``.
        keys: its objects.
        size: bytes.
        modified: when the newest of its objects was written.
    """

    what: str
    folder: str
    keys: tuple[str, ...]
    size: int
    modified: datetime


def find_garbage(store: ObjectStore, kept_runs: Collection[str], before: datetime) -> list[Garbage]:
    """Everything written before ``before`` that nothing needs, oldest first.

    Args:
        kept_runs: names of the runs whose features are kept however old they are.
    """
    needed = _needed(store, kept_runs, before)
    found = [
        Garbage(what, folder, tuple(entry.key for entry in entries), sum(entry.size for entry in entries), modified)
        for kind, what in KINDS.items()
        for folder, entries in _folders(store, kind)
        if folder not in needed and (modified := max(entry.modified for entry in entries)) < before
    ]
    return sorted(found, key=lambda garbage: garbage.modified)


def remove(store: ObjectStore, garbage: Garbage) -> None:
    """Delete it; stopped half-way, it is no artifact any more and still garbage."""
    for key in sorted(garbage.keys, key=lambda key: not key.endswith(FIRST)):
        store.delete(key)


def has_records(store: ObjectStore, run_name: str) -> bool:
    """Whether the store knows what the run made."""
    return next(store.keys(f"runs/{run_name}/steps/"), None) is not None


def _folders(store: ObjectStore, kind: str) -> Iterator[tuple[str, list[Entry]]]:
    folders: dict[str, list[Entry]] = {}
    for entry in store.entries(f"{kind}/"):
        folders.setdefault("/".join(entry.key.split("/")[:2]), []).append(entry)
    yield from folders.items()


def _needed(store: ObjectStore, kept_runs: Collection[str], before: datetime) -> set[str]:
    """Keys of the artifacts that the steps of young and of kept runs made or reused."""
    needed: set[str] = set()
    for entry in store.entries("runs/"):
        run_name, _, record = entry.key.removeprefix("runs/").partition("/steps/")
        if record and (entry.modified >= before or run_name in kept_runs):
            needed |= {artifact["key"] for artifact in json.loads(store.read(entry.key))["artifacts"].values()}
    return needed
