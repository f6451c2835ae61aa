"""What ended a run that failed: from the events its steps told, and where they told nothing, from its log."""

import re
from pathlib import Path

from components.errors import UserError
from pipelines.progress import Event

TAIL_LINES = 15
EXCEPTION = re.compile(r"\s*[\w.]+(Error|Exception|Exit|Interrupt)(: |$)")  # a traceback's last line


class PipelineCrash(Exception):
    """A step died of something no one foresaw: not the user's to put right, so the log has to speak.

    Attributes:
        steps: one line each: which step, and why as far as it is known.
        log: the whole log.
    """

    def __init__(self, steps: tuple[str, ...], log: Path, tail: tuple[str, ...]) -> None:
        self.steps, self.log = steps, log
        super().__init__("\n".join([*steps, *tail, f"-> the whole log: {log}"]))


def failure(seen: list[Event], log: Path) -> Exception:
    """What ended the run: a user error if a step met one, else the crash of the steps that did not end."""
    last = {(event["step"], event["part"]): event for event in seen if event["event"] not in ("advanced", "said")}
    failed = [event for event in last.values() if event["event"] == "failed"]
    crashed = [f"{_who(event)} crashed: {event['why']}" for event in last.values() if event["event"] == "crashed"]
    if failed:
        first, *others = failed
        also = [f"{_who(other)}: {other['what']}" for other in others]
        return UserError(first["what"], remedy=first["remedy"], problems=(*first["problems"], *also, *crashed))
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if not crashed:
        at_work = [_who(event) for event in last.values() if event["event"] == "started"]
        crashed = [f"{', '.join(at_work) or 'the pipeline'} crashed: {_cause(lines)}"]
    return PipelineCrash(tuple(crashed), log, tuple(lines[-TAIL_LINES:]))


def _who(event: Event) -> str:
    return " ".join(filter(None, (event["step"], event["part"])))


def _cause(lines: list[str]) -> str:
    """What a log says of a step that could not tell by itself: the last line of its last traceback, if there is one."""
    if any(line.lstrip().startswith("Traceback") for line in lines):
        for line in reversed(lines):
            if EXCEPTION.match(line):
                return line.strip()
    return "something ended it from outside, most often for want of memory"
