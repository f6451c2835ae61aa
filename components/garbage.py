"""What in the store nothing refers to any more: old feature sets and staged sources, and what unfinished jobs left.

Features are by far the largest artifacts, and they can be made again; adapters, logits and the small tables stay, since
versions in the registry are made of them. A feature set is kept while the records of a run name it that is not old yet
or that made a registered version.

So are staged data, models and configs, and those that the latest run of a name was given, however old it is: the next
one of its schedule will ask for them. What a job left on its way (checkpoints, an adapter not collected) goes by age.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from components.artifacts import MANIFEST
from components.object_store import Entry, ObjectStore

KINDS = {
    "features": "feature set",
    "staged": "staged source",
    "configs": "config",
    "checkpoints": "checkpoints",
    "trained": "adapter not collected",
}
SOURCES = re.compile(r"staged/[0-9a-f]{32}|configs/[0-9a-f]{64}\.json")
OPENED = "open_run.json"  # the record that names what a run was given
FIRST = (f"/{MANIFEST}", "/newest", "/facts.json")  # without these the rest counts for nothing: they go first


@dataclass(frozen=True)
class Garbage:
    """A folder of the store that can go.

    Attributes:
        what: for people, of :data:`KINDS`.
        folder: its key, ``features/<digits>``; a config's is that of its only object.
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
        kept_runs: names of the runs whose features and sources are kept however old they are.
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


def sources_in(*texts: str) -> list[str]:
    """Keys of staged sources and configs that a config names, or the text that stands for it."""
    return sorted({key for text in texts for key in SOURCES.findall(text)})


def has_records(store: ObjectStore, run_name: str) -> bool:
    """Whether the store knows what the run made."""
    return next(store.keys(f"runs/{run_name}/steps/"), None) is not None


def _folders(store: ObjectStore, kind: str) -> Iterator[tuple[str, list[Entry]]]:
    folders: dict[str, list[Entry]] = {}
    for entry in store.entries(f"{kind}/"):
        folders.setdefault("/".join(entry.key.split("/")[:2]), []).append(entry)
    yield from folders.items()


def _needed(store: ObjectStore, kept_runs: Collection[str], before: datetime) -> set[str]:
    """Keys that the steps of young and of kept runs made, reused or were given, and what latest runs were given."""
    needed, latest = set[str](), dict[str, tuple[datetime, list[str]]]()
    for entry in store.entries("runs/"):
        run_name, _, step = entry.key.removeprefix("runs/").partition("/steps/")
        counts = entry.modified >= before or run_name in kept_runs
        if not step or not (counts or step == OPENED):
            continue
        record = json.loads(store.read(entry.key))
        given = record.get("facts", {}).get("sources", [])
        if counts:
            needed |= {*given, *(artifact["key"] for artifact in record["artifacts"].values())}
        if step == OPENED:
            name = record["facts"].get("name", "")
            latest[name] = max(latest.get(name, (entry.modified, given)), (entry.modified, given))
    return needed.union(*(given for _, given in latest.values()))
