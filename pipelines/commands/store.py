"""Commands for the store: gc, and sharing a report by a link."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from components.config_file import read_config, resolved
from components.object_store import ObjectStore, open_store
from pipelines.commands.common import ConfigOption, DebugOption, RootOption, reported, where
from pipelines.invocation import typed
from pipelines.local import default_root, locked

if TYPE_CHECKING:
    from components.garbage import Garbage

DaysOption = Annotated[int, typer.Option(help="Keep what is younger, or named by a younger run.", min=1)]
DeleteOption = Annotated[bool, typer.Option("--delete", help="Do it. Without this it is only shown.")]
LONGEST_LINK = 7 * 24  # hours: S3's own limit
ShareOption = Annotated[
    int | None,
    typer.Option(
        help="Print a link to a copy in the bucket; whoever has the link can read it for so many hours.",
        metavar="HOURS",
        min=1,
        max=LONGEST_LINK,
    ),
]


def gc(
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    days: DaysOption = 30,
    delete: DeleteOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what the store could do without (old features, staged sources, checkpoints), or delete it.

    Kept is what a run made or used that made a registered version or is younger, and what the latest run was given.
    """
    with reported(debug):
        config = read_config(config_file)
        folder = root or default_root(config)
        config = resolved(config, folder)
        from components.garbage import find_garbage, remove
        from components.registry.kept_runs import runs_of_versions
        from components.registry.reference import of_config

        kept = runs_of_versions(of_config(config).connect())
        store, now, console = open_store(config.storage, folder / "store"), datetime.now(UTC), Console()
        _warn_of_unknown(console, store, kept)
        with locked(folder) if delete else nullcontext():  # no run on this machine is at work here meanwhile
            found = find_garbage(store, kept, now - timedelta(days=days))
            _show(console, found, now)
            for garbage in found if delete else ():
                remove(store, garbage)
        total = decimal(sum(garbage.size for garbage in found))
        console.print(Text(f"{'deleted' if delete else 'to delete'}: {len(found)} folders, {total}"))
        if found and not delete:
            again = typed("gc", *where(config_file, root), "--days", days, "--delete")
            console.print(Text(f"-> {again}"), soft_wrap=True)


def share_report(store: ObjectStore, run_name: str, page: Path, *, hours: int) -> str:
    """Put a report beside the run's records; a link by which anyone can read it for so long.

    Raises:
        UserError: the store is a folder.
    """
    key = f"runs/{run_name}/report.html"
    link = store.link(key, hours * 3600, "text/html; charset=utf-8")
    store.upload(page, key)
    return link


def _warn_of_unknown(console: Console, store: ObjectStore, kept: dict[str, str]) -> None:
    from components.garbage import has_records

    for run_name, version in kept.items():
        if not has_records(store, run_name):
            what = f"{version}: no records of its run in this store, so none of its features are kept"
            console.print(Text(what), soft_wrap=True)


def _show(console: Console, found: Sequence["Garbage"], now: datetime) -> None:
    if not found:
        return
    table = Table("what", "where", box=None, pad_edge=False)
    table.add_column("size", justify="right")
    table.add_column("age, days", justify="right")
    for garbage in found:
        table.add_row(garbage.what, Text(garbage.folder), decimal(garbage.size), str((now - garbage.modified).days))
    console.print(table)
