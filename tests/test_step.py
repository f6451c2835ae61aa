"""What every step has in common: its record, its references, and what it tells."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import find
from components.config import DatasetConfig, ModelConfig, RunConfig, StorageConfig
from components.errors import UserError
from components.events import VARIABLE
from components.object_store import LocalStore
from components.step import Step, peak_memory, read_records, read_references, write_references


@pytest.fixture
def config(tmp_path: Path) -> str:
    return RunConfig(
        model=ModelConfig(id="none"),
        datasets=[DatasetConfig(name="mood", path="none")],
        storage=StorageConfig(uri=str(tmp_path / "store")),
    ).model_dump_json()


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "events.jsonl"))
    return tmp_path / "events.jsonl"


def read_events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_hello(folder: Path) -> dict[str, Any]:
    (folder / "hello.txt").write_text("hello")
    return {"words": 1}


def never(folder: Path) -> dict[str, Any]:
    raise AssertionError("made although it was there")


def test_the_record_says_what_a_step_made_and_cost(config: str) -> None:
    with Step("extract", config, "run-1", part="a+b") as step:
        made = step.obtain("features/a", "features", {"of": "a"}, write_hello)
        step.flops += 123
        step.facts = {"rows": 7}
    [record] = read_records(step.store, "run-1")
    assert list(step.store.keys("runs/")) == ["runs/run-1/steps/extract.a+b.json"]
    assert record | {"seconds": 0, "peak_memory_bytes": 0} == {
        "step": "extract",
        "part": "a+b",
        "seconds": 0,
        "peak_memory_bytes": 0,
        "flops": 123,
        "reused": False,
        "artifacts": {"features/a": {"key": made.key, "digest": made.digest, "fresh": True}},
        "facts": {"rows": 7},
    }
    assert record["seconds"] >= 0
    assert record["peak_memory_bytes"] > 2**20


def test_a_step_whose_work_was_done_is_reused(config: str, told: Path) -> None:
    for run, write in (("run-1", write_hello), ("run-2", never)):
        with Step("extract", config, run) as step:
            step.obtain("a", "kind", {}, write)
    assert [read_records(step.store, run)[0]["reused"] for run in ("run-1", "run-2")] == [False, True]
    assert [event["reused"] for event in read_events(told) if event["event"] == "finished"] == [False, True]


def test_a_step_that_made_anything_anew_is_not_reused(config: str) -> None:
    with Step("extract", config, "run-1") as step:
        step.obtain("a", "kind", {"of": "a"}, write_hello)
    with Step("extract", config, "run-2") as step:
        step.obtain("a", "kind", {"of": "a"}, never)
        step.obtain("b", "kind", {"of": "b"}, write_hello)
    [record] = read_records(step.store, "run-2")
    assert record["reused"] is False
    assert {label: made["fresh"] for label, made in record["artifacts"].items()} == {"a": False, "b": True}


def test_a_step_that_made_nothing_is_not_reused(config: str) -> None:
    with Step("promote", config, "run-1") as step:
        pass
    assert read_records(step.store, "run-1")[0]["reused"] is False


def test_an_artifact_can_have_a_key_of_its_own(config: str) -> None:
    with Step("extract", config, "run-1") as step:
        made = step.obtain("a", "kind", {}, write_hello, key="shelf/mine")
        again = step.obtain("b", "kind", {}, never, key="shelf/mine")
    assert made.key == again.key == "shelf/mine"


def test_a_user_error_is_told_and_leaves_no_record(config: str, told: Path) -> None:
    with pytest.raises(UserError), Step("prepare", config, "run-1", part="mood") as step:
        raise UserError("no such file", remedy="mend the path", problems=("a.csv", "b.csv"))
    events = [{**event, "time": 0} for event in read_events(told)]
    assert events == [
        {"event": "started", "step": "prepare", "part": "mood", "time": 0},
        {
            "event": "failed",
            "step": "prepare",
            "part": "mood",
            "time": 0,
            "what": "no such file",
            "remedy": "mend the path",
            "problems": ["a.csv", "b.csv"],
        },
    ]
    assert read_records(step.store, "run-1") == []


def test_another_error_is_not_told_as_the_users(config: str, told: Path) -> None:
    with pytest.raises(ZeroDivisionError), Step("prepare", config, "run-1") as step:
        raise ZeroDivisionError("no one\nforesaw this")
    started, crashed = read_events(told)
    assert (started["event"], crashed["event"], crashed["why"]) == ("started", "crashed", "ZeroDivisionError: no one")
    assert read_records(step.store, "run-1") == []


def test_a_step_that_someone_stopped_did_not_crash(config: str, told: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Step("prepare", config, "run-1"):
        raise KeyboardInterrupt
    assert [event["event"] for event in read_events(told)] == ["started"]


def test_progress_and_news_are_told(config: str, told: Path) -> None:
    with Step("train", config, "run-1", part="group-0") as step:
        step.progress(3, 3, "loss 0.1")
        step.say("done early")
    shown = [{k: event[k] for k in event if k not in ("time", "step", "part")} for event in read_events(told)[1:3]]
    assert shown == [
        {"event": "advanced", "done": 3, "total": 3, "note": "loss 0.1"},
        {"event": "said", "text": "done early"},
    ]


def test_what_is_passed_on_can_be_loaded_by_the_next_step(config: str, tmp_path: Path) -> None:
    with Step("extract", config, "run-1") as step:
        step.obtain("features/a", "features", {"of": "a"}, write_hello)
        step.pass_on(tmp_path / "out" / "references")
    references = read_references(tmp_path / "out" / "references")
    with Step("estimate", config, "run-1") as after:
        loaded = after.load(references, "features/a")
    assert (loaded.folder / "hello.txt").read_text() == "hello"
    assert loaded.facts == {"words": 1}
    assert after.made == {}


def test_references_of_a_fan_out_are_put_together(tmp_path: Path) -> None:
    write_references(tmp_path / "a", {"x": "kind/1"})
    write_references(tmp_path / "deep" / "b", {"y": "kind/2", "z": "kind/3"})
    assert read_references(tmp_path / "a") == {"x": "kind/1"}
    assert read_references([tmp_path / "a", tmp_path / "deep" / "b"]) == {"x": "kind/1", "y": "kind/2", "z": "kind/3"}
    assert read_references([]) == {}


def test_what_is_withheld_is_not_passed_on_but_kept(config: str, tmp_path: Path) -> None:
    labels = ["booster/group-1-0", "logits/group-1-0/mood/test", "logits/group-1-01/mood/test", "booster/group-1-1"]
    with Step("boost", config, "run-1", part="group-1") as step:
        made = {label: step.obtain(label, "kind", {"label": label}, write_hello) for label in labels}
        step.withhold("group-1-0")
        step.pass_on(tmp_path / "references")
    assert list(read_references(tmp_path / "references")) == labels[2:]
    assert find(step.store, made[labels[0]].key) == made[labels[0]]
    assert list(read_records(step.store, "run-1")[0]["artifacts"]) == labels[2:]


def test_without_an_address_the_store_stands_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = RunConfig(
        name="desk", model=ModelConfig(id="none"), datasets=[DatasetConfig(name="mood", path="none")]
    ).model_dump_json()
    store = Step("prepare", config, "run-1").store
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path / ".loraloom" / "desk" / "store"


def test_records_come_in_the_order_of_their_names(config: str) -> None:
    for part in ("b", "a"):
        with Step("train", config, "run-1", part=part) as step:
            pass
    assert [record["part"] for record in read_records(step.store, "run-1")] == ["a", "b"]


def test_memory_held_is_counted_in_bytes() -> None:
    before = peak_memory()
    held = bytearray(64 * 2**20)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    assert peak_memory() >= before
    assert peak_memory() > 64 * 2**20
