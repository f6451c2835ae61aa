"""Shows a run while it runs: bars in a terminal, plain lines everywhere else.

What to show comes from the file of events that the steps append to (``components/events.py``).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from components.events import as_line

Event = dict[str, Any]


class Tail:
    """Reads a growing file of JSON lines; a line not yet finished is left for the next call."""

    def __init__(self, path: Path) -> None:
        self._path, self._position = path, 0

    def read(self) -> list[Event]:
        """The events since the last call, in the order they were written."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as handle:
            handle.seek(self._position)
            whole, newline, _ = handle.read().rpartition(b"\n")
        self._position += len(whole) + len(newline)
        return [json.loads(line) for line in whole.split(b"\n") if line]


class View(Protocol):
    """What shows events."""

    def show(self, event: Event) -> None:
        """Show one event; called in order."""


class PlainView:
    """Starts, ends and notes, a line each: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, event: Event) -> None:
        """Print all but advances."""
        if event["event"] != "advanced":
            self._console.print(Text(as_line(event)), soft_wrap=True)


class LiveView:
    """A bar for each step at work; what is done or said scrolls away above the bars."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[tuple[str, str], TaskID] = {}

    def show(self, event: Event) -> None:
        """Move, add or remove the bar of the event's step."""
        match event["event"]:
            case "started" | "advanced":
                self._move(event)
            case "said":
                self._progress.console.print(Text(f"  {as_line(event)}", style="yellow"))
            case ended:
                self._end(event, good=ended == "finished")

    def _move(self, event: Event) -> None:
        bar = self._bar(event)
        total, done = event.get("total"), event.get("done", 0)
        self._progress.update(bar, total=total, completed=done, note=event.get("note", ""))

    def _bar(self, event: Event) -> TaskID:
        who = (event["step"], event["part"])
        if who not in self._bars:
            self._bars[who] = self._progress.add_task(_name(event), total=None, note="")
        return self._bars[who]

    def _end(self, event: Event, good: bool) -> None:
        if (bar := self._bars.pop((event["step"], event["part"]), None)) is not None:
            self._progress.remove_task(bar)
        line = Text.assemble(("✓ ", "green") if good else ("✗ ", "red"), f"{_name(event):<32}")
        if good:
            line.append(" reused" if event["reused"] else f" {event['seconds']:8.1f} s", style="dim")
        self._progress.console.print(line)


@contextmanager
def open_view(console: Console) -> Iterator[View]:
    """Bars where ``console`` is a terminal, else plain lines."""
    if not console.is_terminal:
        yield PlainView(console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield LiveView(progress)


def _name(event: Event) -> str:
    return " ".join(word for word in (event["step"].replace("_", " "), event["part"]) if word)
