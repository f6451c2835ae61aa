"""Events from several processes reach one file whole; without the file they are log lines."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components import events

WRITER = """
import sys
from components import events
for number in range(200):
    events.said("step", sys.argv[1], f"{number} " + "x" * 5000)
"""


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(events.VARIABLE, str(path))
    return path


def test_every_kind_is_one_line(file: Path) -> None:
    events.started("train", "group-0")
    events.advanced("train", "group-0", 3, 10, "loss 0.5")
    events.said("prepare", "", "label 'ö' answers\nwith the token 'A'")
    events.finished("train", "group-0", reused=False, seconds=1.5)
    events.failed("train", "group-1", "no memory", "smaller batches", ("a", "b"))
    found = read(file)
    assert all(event.pop("time") > 0 for event in found)
    assert found == [
        {"event": "started", "step": "train", "part": "group-0"},
        {"event": "advanced", "step": "train", "part": "group-0", "done": 3, "total": 10, "note": "loss 0.5"},
        {"event": "said", "step": "prepare", "part": "", "text": "label 'ö' answers\nwith the token 'A'"},
        {"event": "finished", "step": "train", "part": "group-0", "reused": False, "seconds": 1.5},
        {
            "event": "failed",
            "step": "train",
            "part": "group-1",
            "what": "no memory",
            "remedy": "smaller batches",
            "problems": ["a", "b"],
        },
    ]


def test_advances_are_thinned_by_step_and_part_but_the_last_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.05, 0.1, 0.25, 0.26, 0.27])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    events.started("extract", "a")
    for done in (1, 2):
        events.advanced("extract", "a", done, 5)  # 2 comes too soon
    events.advanced("extract", "b", 1, 5)  # another part has a clock of its own
    for done in (3, 4, 5):
        events.advanced("extract", "a", done, 5)  # 4 comes too soon, 5 is the end
    told = [(event["part"], event["done"]) for event in read(file) if event["event"] == "advanced"]
    assert told == [("a", 1), ("b", 1), ("a", 3), ("a", 5)]


def test_lines_of_several_processes_never_mix(file: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name]) for name in ("a", "b", "c")]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = read(file)
    for name in ("a", "b", "c"):
        numbers = [int(event["text"].split()[0]) for event in found if event["part"] == name]
        assert numbers == list(range(200))


def test_without_a_file_they_are_log_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(events.VARIABLE, raising=False)
    events.started("warm_start", "")
    events.advanced("warm_start", "", 1, 8, "loss 0.5")
    events.advanced("warm_start", "", 2, 8)  # too soon
    events.said("warm_start", "", "3 texts cut")
    events.finished("warm_start", "", reused=True, seconds=0.1)
    events.finished("train", "group-0", reused=False, seconds=12.34)
    events.failed("train", "group-1", "no memory", "smaller batches", ("a",))
    events.crashed("boost", "group-1", "KeyError: 'x'")
    assert capsys.readouterr().out.splitlines() == [
        "warm_start: started",
        "warm_start: 1/8 (loss 0.5)",
        "warm_start: 3 texts cut",
        "warm_start: reused",
        "train group-0: finished in 12.3 s",
        "train group-1: failed: no memory",
        "  - a",
        "  -> smaller batches",
        "boost group-1: crashed: KeyError: 'x'",
    ]
