"""Which feature sets and checkpoints can go."""

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import find, publish
from components.garbage import find_garbage, has_records, remove, sources_in
from components.object_store import LocalStore
from components.step import write_record

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def age(store: LocalStore, prefix: str, days: float) -> None:
    """Make everything under ``prefix`` so old."""
    then = (NOW - timedelta(days=days)).timestamp()
    for key in store.keys(prefix):
        os.utime(store.root / key, (then, then))


def features(store: LocalStore, name: str, days: float, kind: str = "features") -> str:
    def write(folder: Path) -> Mapping[str, Any]:
        (folder / "train.safetensors").write_bytes(name.encode())
        return {}

    key = publish(store, kind, {"name": name}, write).key
    age(store, key, days)
    return key


def ran(
    store: LocalStore,
    run_name: str,
    days: float,
    keys: Iterable[str] = (),
    given: Iterable[str] = (),
    name: str = "desk",
) -> None:
    """A run of ``name`` that made or reused ``keys`` and was given sources so long ago, by the records it left."""
    opened = {"name": name, "sources": list(given)}
    write_record(store, run_name, {"step": "open_run", "part": "", "artifacts": {}, "facts": opened})
    made = {f"features/{number}": {"key": key, "digest": "d", "fresh": False} for number, key in enumerate(keys)}
    write_record(store, run_name, {"step": "extract", "part": "a", "artifacts": made})
    write_record(store, run_name, {"step": "promote", "part": "", "artifacts": {}})
    store.write(f"runs/{run_name}/report.html", b"not a record")
    age(store, f"runs/{run_name}/", days)


def garbage(store: LocalStore, kept: Iterable[str] = ()) -> list[str]:
    return [each.folder for each in find_garbage(store, list(kept), NOW - MONTH)]


def test_features_go_when_they_are_old_and_no_run_needs_them(store: LocalStore) -> None:
    old, young = features(store, "old", 31), features(store, "young", 29)
    oldest = features(store, "oldest", 400)
    assert garbage(store) == [oldest, old]
    assert find(store, young) is not None


def test_what_a_young_run_reused_stays(store: LocalStore) -> None:
    reused, unused = features(store, "reused", 400), features(store, "unused", 400)
    ran(store, "run-old", 31, [unused])
    ran(store, "run-young", 29, [reused])
    assert garbage(store) == [unused]


def test_what_a_registered_version_was_made_from_stays_for_good(store: LocalStore) -> None:
    registered, forgotten = features(store, "registered", 400), features(store, "forgotten", 400)
    ran(store, "run-1", 399, [registered])
    ran(store, "run-10", 399, [forgotten])
    assert garbage(store, ["run-1"]) == [forgotten]
    assert set(garbage(store)) == {registered, forgotten}


def test_other_kinds_stay_for_good(store: LocalStore) -> None:
    for kind in ("adapter", "booster", "logits", "start", "dataset", "evaluation"):
        features(store, "old", 400, kind)
    assert garbage(store) == []


def test_sources_stay_while_a_young_or_kept_or_latest_run_was_given_them(store: LocalStore) -> None:
    names = ("young", "kept", "latest", "superseded", "other", "nobody's")
    staged = {name: features(store, name, 400, "staged") for name in names}
    configs = {name: f"configs/{number:064x}.json" for number, name in enumerate(names)}
    for key in configs.values():
        store.write(key, b"{}")
    age(store, "configs/", 400)
    ran(store, "run-1", 350, given=[staged["superseded"], configs["superseded"]])
    ran(store, "run-2", 340, given=[staged["kept"], configs["kept"]])
    ran(store, "run-3", 31, given=[staged["other"], configs["other"]], name="a second project")
    ran(store, "run-4", 31, given=[staged["latest"], configs["latest"]])
    gone = {key for name in ("superseded", "nobody's") for key in (staged[name], configs[name])}
    gone |= {staged["young"], configs["young"]}
    assert set(garbage(store, ["run-2"])) == gone
    ran(store, "run-5", 2, given=[staged["latest"], configs["latest"]])
    ran(store, "run-0", 3, given=[staged["young"], configs["young"]])
    assert set(garbage(store, ["run-2"])) == gone - {staged["young"], configs["young"]}


def test_the_sources_of_a_config_are_found_in_it(store: LocalStore) -> None:
    staged, config = f"staged/{'ab' * 16}", f"configs/{'cd' * 32}.json"
    told = f'{{"datasets": [{{"path": "s3://b/x/{staged}/01/film"}}], "model": {{"id": "/root/{staged}/9/model"}}}}'
    assert sources_in(told, f'{{"config_key": "{config}"}}') == [config, staged]
    assert sources_in('{"path": "/data/staged/film"}') == []


def test_an_adapter_that_nobody_collected_goes(store: LocalStore) -> None:
    for job in ("old", "new"):
        for name in ("adapter_model.safetensors", "facts.json"):
            store.write(f"trained/{job}/{name}", b"data")
    age(store, "trained/old", 31)
    age(store, "trained/new", 29)
    (found,) = find_garbage(store, [], NOW - MONTH)
    assert (found.what, found.folder) == ("adapter not collected", "trained/old")
    remove(store, found)
    assert list(store.keys("trained/")) == ["trained/new/adapter_model.safetensors", "trained/new/facts.json"]


def test_an_unfinished_feature_set_goes_too(store: LocalStore) -> None:
    unfinished = features(store, "killed", 31)
    store.delete(f"{unfinished}/manifest.json")
    assert garbage(store) == [unfinished]


def test_checkpoints_go_a_while_after_their_job_last_wrote_one(store: LocalStore) -> None:
    for job in ("dead", "alive"):
        for name in ("checkpoint-5/optimizer.pt", "checkpoint-10/optimizer.pt", "newest"):
            store.write(f"checkpoints/{job}/{name}", b"data")
    age(store, "checkpoints/", 40)
    age(store, "checkpoints/alive/newest", 1)
    (found,) = find_garbage(store, [], NOW - MONTH)
    assert (found.what, found.folder, found.size) == ("checkpoints", "checkpoints/dead", 12)
    assert found.modified == NOW - timedelta(days=40)


def test_removing_begins_with_what_makes_it_count(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    old, other = features(store, "old", 31), features(store, "other", 1)
    store.write("checkpoints/job/checkpoint-5/optimizer.pt", b"data")
    store.write("checkpoints/job/newest", b"checkpoint-5")
    age(store, "checkpoints/", 31)
    deleted: list[str] = []
    delete = store.delete
    monkeypatch.setattr(store, "delete", lambda key: (deleted.append(key), delete(key)))
    for each in find_garbage(store, [], NOW - MONTH):
        remove(store, each)
    assert {deleted[0], deleted[2]} == {f"{old}/manifest.json", "checkpoints/job/newest"}
    assert len(deleted) == 4
    assert {key.rpartition("/")[0].split("/")[1] for key in store.keys("")} == {other.split("/")[1]}
    assert find(store, old) is None
    assert find(store, other) is not None


def test_whether_a_run_has_records(store: LocalStore) -> None:
    ran(store, "run-1", 0, [])
    store.write("runs/run-2/report.html", b"")
    assert [has_records(store, name) for name in ("run-1", "run-2", "run-3", "run")] == [True, False, False, False]
