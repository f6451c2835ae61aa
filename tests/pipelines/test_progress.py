"""A run's events as plain lines, and as bars in a terminal."""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from pipelines.progress import LiveView, PlainView, Tail, open_view


def event(kind: str, step: str, part: str = "", **details: Any) -> dict[str, Any]:
    return {"event": kind, "step": step, "part": part, "time": 0.0, **details}


RUN = [
    event("started", "warm_start"),
    event("advanced", "warm_start", done=2, total=8, note="loss [0.5]"),
    event("said", "warm_start", text="label 'new york' answers with the token 'N'"),
    event("finished", "warm_start", reused=False, seconds=12.34),
    event("finished", "extract", "a", reused=True, seconds=0.1),
    event("started", "train", "group-0"),
    event("failed", "train", "group-0", what="no memory", remedy="", problems=[]),
]


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, legacy_windows=False)


def text_of(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def test_tail_returns_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    lines = [json.dumps(event("said", "a", text=text), ensure_ascii=False).encode() for text in ("eins\u2028", "zwö")]
    path.write_bytes(lines[0] + b"\n" + lines[1][:-5])
    assert [entry["text"] for entry in tail.read()] == ["eins\u2028"]
    assert tail.read() == []
    with path.open("ab") as handle:
        handle.write(lines[1][-5:] + b"\n")
    assert [entry["text"] for entry in tail.read()] == ["zwö"]


def test_logs_get_plain_lines_without_control_codes() -> None:
    plain = console(terminal=False)
    with open_view(plain) as view:
        assert isinstance(view, PlainView)
        for entry in RUN:
            view.show(entry)
    assert text_of(plain).splitlines() == [
        "warm_start: started",
        "warm_start: label 'new york' answers with the token 'N'",
        "warm_start: finished in 12.3 s",
        "extract a: reused",
        "train group-0: started",
        "train group-0: failed: no memory",
    ]


def test_a_terminal_gets_a_bar_for_each_step_at_work() -> None:
    terminal = console(terminal=True)
    progress = Progress(console=terminal)
    view = LiveView(progress)
    for entry in [event("started", "train", "group-0"), event("started", "train", "group-1"), RUN[0], RUN[1]]:
        view.show(entry)
    bars = {task.description: (task.completed, task.total, task.fields["note"]) for task in progress.tasks}
    assert bars == {
        "train group-0": (0, None, ""),
        "train group-1": (0, None, ""),
        "warm start": (2, 8, "loss [0.5]"),
    }
    view.show(event("finished", "train", "group-0", reused=False, seconds=1))
    assert {task.description for task in progress.tasks} == {"train group-1", "warm start"}


def test_a_terminal_keeps_what_ended_and_what_was_said() -> None:
    terminal = console(terminal=True)
    with open_view(terminal) as view:
        for entry in RUN:
            view.show(entry)
    shown = text_of(terminal)
    for words in ("warm start", "12.3 s", "reused", "label 'new york' answers with the token 'N'", "✓", "✗"):
        assert words in shown
