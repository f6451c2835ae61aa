"""How the user can type the `loraloom` command: after `make demo` it is in `.venv/bin`, which no shell looks into."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def typed(*words: object) -> str:
    """A command line that starts this installation's `loraloom` from the working directory, quoted for a shell."""
    return shlex.join([*_program(), *(str(word) for word in words)])


def _program() -> list[str]:
    """`loraloom` where the shell finds this installation by that name, else its path, else its module."""
    script = Path(sys.executable).with_name("loraloom")
    if not script.is_file():
        return [sys.executable, "-m", "pipelines.cli"]
    known = shutil.which("loraloom")
    if known and os.path.samefile(known, script):
        return ["loraloom"]
    below = script.is_relative_to(Path.cwd())
    return [str(script.relative_to(Path.cwd()) if below else script)]
