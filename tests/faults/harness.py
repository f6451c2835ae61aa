"""One table-driven harness for faults that a user can cause: a sound project, one thing broken in it, what is said.

A case says what it breaks (``do``, on a project that works) and what the user then has to read (``says``). Every case
goes through the command line, and none may end in an internal error or a traceback.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from tests.e2e.project import sentences, write_rows
from tests.tiny_ensemble import write_base

Break = Callable[["Sound"], object]


@dataclass(frozen=True)
class Fault:
    """One row of a table: its name, what is broken, and the texts that the message has to hold."""

    name: str
    do: Break
    says: tuple[str, ...]


class Sound:
    """A project that works until it is broken: a tiny model, the dataset ``film`` in three files, a config."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model, self.film = folder, folder / "model", folder / "film"
        self.config = folder / "config.yaml"

    def write(self) -> None:
        """Put the project into its folder."""
        write_base(self.model)
        self.film.mkdir()
        rows = list(sentences("film", 0))
        for part, count in {"train": 40, "validation": 20, "test": 20}.items():
            write_rows(self.film / f"{part}.jsonl", [rows.pop() for _ in range(count)])
        self.settings({})

    def settings(self, changes: dict[str, Any], **dataset: Any) -> None:
        """Write the config with other sections, and other settings of the dataset."""
        model = {"id": "model", "quantization": "none", "dtype": "float32", "device": "cpu", "max_length": 64}
        entry = {"name": "film", "path": "film", **dataset}
        values = {"name": "small", "model": model, "datasets": [entry]}
        for section, inside in changes.items():
            before = values.get(section)
            values[section] = {**before, **inside} if isinstance(before, dict) and isinstance(inside, dict) else inside
        self.config.write_text(yaml.safe_dump(values, sort_keys=False))

    def text(self, text: str | bytes) -> None:
        """Write the config as it is given."""
        self.config.write_bytes(text.encode() if isinstance(text, str) else text)

    def rows(self, *lines: str | bytes, part: str = "train") -> None:
        """Append raw lines to a part of the dataset."""
        with (self.film / f"{part}.jsonl").open("ab") as file:
            file.writelines((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)

    def command(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output and error output of ``loraloom <words> -c config``."""
        done = CliRunner().invoke(app, [*words, "-c", str(self.config)], env={"COLUMNS": "200"})
        return done.exit_code, done.stdout, done.stderr


def copy_of(sound: Sound, folder: Path) -> Sound:
    """The project once more, to be broken."""
    shutil.copytree(sound.folder, folder, dirs_exist_ok=True)
    return Sound(folder)


def told(project: Sound, *words: str) -> str:
    """What the user reads of a fault that is theirs to mend; exit code 2, no internals."""
    code, _, errors = project.command(*words)
    assert code == 2, f"exit code {code}:\n{errors}"
    assert "error: " in errors
    for internal in ("internal error", "Traceback", "pydantic", 'File "'):
        assert internal not in errors, errors
    return errors[errors.index("error: ") :]  # what transformers says while it loads weights comes before


def parametrize(faults: list[Fault]) -> Any:
    """The table as pytest's parameters."""
    return pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in faults])
