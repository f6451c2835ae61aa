"""The one exception a user is meant to see."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user can put right: what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2. ``problems`` holds one line for each finding
    when there are several (a config or a dataset is always checked to its end).
    """

    def __init__(self, what: str, *, remedy: str = "", problems: tuple[str, ...] = ()) -> None:
        self.what, self.remedy, self.problems = what, remedy, problems
        super().__init__(
            "\n".join([what, *(f"  - {line}" for line in problems), *([f"-> {remedy}"] if remedy else [])])
        )


@contextmanager
def readable(path: object) -> Iterator[None]:
    """Turn what the file system refuses while ``path`` is read into a ``UserError``."""
    try:
        yield
    except PermissionError as error:
        remedy = "let the user that runs loraloom read it"
        raise UserError(f"{path} cannot be read: {_why(error)}", remedy=remedy) from error
    except OSError as error:
        remedy = "see that it is a whole file, and that nothing else is at work on it"
        raise UserError(f"{path} cannot be read: {_why(error)}", remedy=remedy) from error


@contextmanager
def writable(path: object) -> Iterator[None]:
    """Turn what the file system refuses while ``path`` is made or written into a ``UserError``."""
    try:
        yield
    except OSError as error:
        remedy = "make it writable, or give another place"
        if isinstance(error, FileNotFoundError) and error.filename and not Path(error.filename).parent.is_dir():
            remedy = f"there is no folder {Path(error.filename).parent}: make it first, or give another place"
        raise UserError(f"{path} cannot be written: {_why(error)}", remedy=remedy) from error


def _why(error: OSError) -> str:
    """In the system's words: libraries word it at length."""
    return os.strerror(error.errno) if error.errno else str(error)
