"""What every command shares: its options, and how a failure is told."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from components.errors import UserError
from pipelines.crash import PipelineCrash

PROBLEMS_ON_A_SCREEN = 15
USER_ERROR, CRASH, INTERRUPTED = 2, 1, 130

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The run's config file.")]
RootOption = Annotated[
    Path | None, typer.Option("--root", help="Folder for everything a run writes; .loraloom/NAME if not given.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the steps' raw log.")]


def where(config_file: Path, root: Path | None) -> list[str]:
    """The options that name this run to other commands."""
    return ["-c", str(config_file), *(["--root", str(root)] if root else [])]


@contextmanager
def reported(debug: bool, *, all_problems: bool = False) -> Iterator[None]:
    """Turn an exception into one screen that says what is wrong, where, and what to do; exit code 2 for user errors."""
    errors = Console(stderr=True)
    try:
        yield
    except UserError as error:
        if debug:
            errors.print_exception()
        shown = error.problems if all_problems else error.problems[:PROBLEMS_ON_A_SCREEN]
        lines = [f"  {line}" for line in shown]
        if hidden := len(error.problems) - len(shown):
            lines.append(f"  ... and {hidden} more: `loraloom check` lists them all")
        _tell(errors, error.what, lines, error.remedy)
        raise typer.Exit(USER_ERROR) from None
    except PipelineCrash as crash:
        what, *also = crash.steps
        remedy = "what is finished is kept, and the same command goes on from it"
        if not debug:  # with it, the log has been shown already
            remedy = f"run again with --debug for the traceback; {remedy}"
        _tell(errors, what, [*(f"  {line}" for line in also), f"  the whole log: {crash.log}"], remedy)
        raise typer.Exit(CRASH) from None
    except KeyboardInterrupt:
        _tell(errors, "stopped", [], "the same command goes on from what is finished")
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            errors.print_exception()
        _tell(
            errors, f"internal error: {type(error).__name__}: {error}", [], "run again with --debug for the traceback"
        )
        raise typer.Exit(CRASH) from None


def _tell(errors: Console, what: str, lines: list[str], remedy: str) -> None:
    sys.stdout.flush()  # what was printed before comes before
    errors.print(Text.assemble(("error: ", "bold red"), what), soft_wrap=True)
    for line in lines:
        errors.print(Text(line), soft_wrap=True)
    if remedy:
        errors.print(Text.assemble(("-> ", "bold"), remedy), soft_wrap=True)
