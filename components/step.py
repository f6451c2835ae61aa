"""What every step of the pipeline has in common: settings, store, progress, costs and its record.

A step hands its results on as *references*: a small JSON file of labels and artifact keys. KFP carries the references,
the object store carries the bytes. When a step ends it leaves a record of what it cost and made under
``runs/<run name>/steps/`` in the store; the report and ``summary.json`` are put together from these records.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from components import events, trouble
from components.artifacts import Artifact, find, key_of, load, publish
from components.config_transport import unpack
from components.errors import UserError
from components.object_store import ObjectStore, open_store


class Step:
    """One step, or one member of a fan-out, while it runs.

    Use as a context manager: leaving it writes the record, or tells whoever shows progress why the step failed; what is
    told as a ``UserError`` though it is none (``trouble.py``) becomes one.
    """

    def __init__(self, name: str, config: str, run_name: str, part: str = "") -> None:
        self.name, self.part, self.run_name = name, part, run_name
        self.config = unpack(config)
        self.store: ObjectStore = open_store(self.config.storage, Path(".loraloom") / self.config.name / "store")
        self.flops = 0
        self.made: dict[str, Artifact] = {}
        self.fresh: set[str] = set()
        self.found: set[str] = set()
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        events.started(self.name, self.part)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self.started
        if error is None:
            reused = bool(self.found) and not self.fresh
            write_record(self.store, self.run_name, self._record(seconds, reused))
            events.finished(self.name, self.part, reused, seconds)
            return
        known = error if isinstance(error, UserError) else trouble.told(error)
        if known is not None:
            events.failed(self.name, self.part, known.what, known.remedy, known.problems)
            if known is not error:
                raise known from error
        elif isinstance(error, Exception):  # not where someone stopped it
            events.crashed(self.name, self.part, one_line(error))

    def obtain(
        self,
        label: str,
        kind: str,
        inputs: Mapping[str, Any],
        write: Callable[[Path], Mapping[str, Any]],
        *,
        key: str = "",
    ) -> Artifact:
        """The artifact made from ``inputs``, from the store if it is there; passed on as ``label``."""
        key = key or key_of(kind, inputs)
        artifact = find(self.store, key)
        if artifact is None:
            artifact = publish(self.store, kind, inputs, write, key=key)
            self.fresh.add(label)
        else:
            self.found.add(label)
        self.made[label] = artifact
        return artifact

    def adopt(self, label: str, artifact: Artifact) -> None:
        """Pass on as ``label`` a finished artifact that was found by other means than its key."""
        self.found.add(label)
        self.made[label] = artifact

    def pass_on(self, path: Path) -> None:
        """Write the references to everything obtained so far."""
        write_references(path, {label: artifact.key for label, artifact in self.made.items()})

    def withhold(self, name: str) -> None:
        """Do not pass on what was obtained under labels with ``name`` between their slashes; the store keeps it."""
        self.made = {label: made for label, made in self.made.items() if name not in label.split("/")}

    def load(self, references: Mapping[str, str], label: str) -> Artifact:
        """The artifact that an earlier step passed on under ``label``."""
        return load(self.store, references[label])

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Tell how far the step is."""
        events.advanced(self.name, self.part, done, total, note)

    def say(self, text: str) -> None:
        """Tell the user something that is no failure."""
        events.said(self.name, self.part, text)

    def say_if(self, text: str) -> None:
        """Tell it where there is something to tell."""
        if text:
            self.say(text)

    def _record(self, seconds: float, reused: bool) -> dict[str, Any]:
        return {
            "step": self.name,
            "part": self.part,
            "seconds": round(seconds, 3),
            "peak_memory_bytes": peak_memory(),
            "flops": self.flops,
            "reused": reused,
            "artifacts": {
                label: {"key": made.key, "digest": made.digest, "fresh": label in self.fresh}
                for label, made in self.made.items()
            },
            "facts": self.facts,
        }


def one_line(error: BaseException) -> str:
    """Kind and message of an exception, as far as a line goes."""
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def peak_memory() -> int:
    """The most memory this process has held, in bytes: on the GPU where it used one, else resident on the host."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_references(path: Path, references: Mapping[str, str]) -> None:
    """Put labels and artifact keys into a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(references, indent=1))


def read_references(paths: Path | Iterable[Path]) -> dict[str, str]:
    """Labels and artifact keys from one file, or from the files of a fan-out."""
    references: dict[str, str] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        references |= json.loads(path.read_text())
    return references


def write_record(store: ObjectStore, run_name: str, record: Mapping[str, Any]) -> None:
    """Keep what a step cost and made."""
    name = f"{record['step']}.{record['part']}" if record["part"] else record["step"]
    store.write(f"runs/{run_name}/steps/{name}.json", json.dumps(record, indent=1).encode())


def read_records(store: ObjectStore, run_name: str) -> list[dict[str, Any]]:
    """The records of all steps of a run that have ended, by name."""
    return [json.loads(store.read(key)) for key in store.keys(f"runs/{run_name}/steps/")]
