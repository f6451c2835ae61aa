"""What a run tells while it runs.

Steps run in processes of their own. Each appends lines of JSON to one file, named by ``LORALOOM_EVENTS``; whoever
shows progress reads that file. Without the variable (a pod on a cluster) the same news are plain lines on stdout.
A line is written by one ``write`` to a file opened for appending, so lines of several processes never mix.
"""

import json
import os
import time
from collections.abc import Sequence
from typing import Any

VARIABLE = "LORALOOM_EVENTS"
SECONDS_BETWEEN_EVENTS = 0.2
SECONDS_BETWEEN_LOG_LINES = 10.0

_last_advance: dict[tuple[str, str], float] = {}


def started(step: str, part: str) -> None:
    """A step begins. ``part`` tells the members of a fan-out apart; it is '' elsewhere."""
    _last_advance.pop((step, part), None)
    _tell("started", step, part)


def advanced(step: str, part: str, done: int, total: int, note: str = "") -> None:
    """``done`` of ``total`` units are behind us. Calls that follow each other too closely say nothing."""
    pause = SECONDS_BETWEEN_EVENTS if VARIABLE in os.environ else SECONDS_BETWEEN_LOG_LINES
    now = time.monotonic()
    if done < total and now - _last_advance.get((step, part), -pause) < pause:
        return
    _last_advance[step, part] = now
    _tell("advanced", step, part, done=done, total=total, note=note)


def finished(step: str, part: str, reused: bool, seconds: float) -> None:
    """A step ended well; ``reused``: its result was in the store already."""
    _tell("finished", step, part, reused=reused, seconds=seconds)


def failed(step: str, part: str, what: str, remedy: str = "", problems: Sequence[str] = ()) -> None:
    """A step met something the user can put right; the fields are those of ``UserError``."""
    _tell("failed", step, part, what=what, remedy=remedy, problems=list(problems))


def crashed(step: str, part: str, why: str) -> None:
    """A step died of something no one foresaw; ``why`` is one line."""
    _tell("crashed", step, part, why=why)


def said(step: str, part: str, text: str) -> None:
    """Something the user should hear although nothing failed."""
    _tell("said", step, part, text=text)


def as_line(event: dict[str, Any]) -> str:
    """An event as a line for a log."""
    name = " ".join(word for word in (event["step"], event["part"]) if word)
    match event["event"]:
        case "started":
            return f"{name}: started"
        case "advanced":
            note = f" ({event['note']})" if event["note"] else ""
            return f"{name}: {event['done']}/{event['total']}{note}"
        case "finished":
            return f"{name}: " + ("reused" if event["reused"] else f"finished in {event['seconds']:.1f} s")
        case "failed":
            lines = [f"  - {line}" for line in event["problems"]] + [f"  -> {event['remedy']}"] * bool(event["remedy"])
            return "\n".join([f"{name}: failed: {event['what']}", *lines])
        case "crashed":
            return f"{name}: crashed: {event['why']}"
        case _:
            return f"{name}: {event['text']}"


def _tell(kind: str, step: str, part: str, **details: Any) -> None:
    event = {"event": kind, "step": step, "part": part, "time": time.time(), **details}
    path = os.environ.get(VARIABLE)
    if path is None:
        print(as_line(event), flush=True)
        return
    line = (json.dumps(event, ensure_ascii=False) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
