"""Commands on who serves: promote, rollback, history."""

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.config import RunConfig
from components.config_file import read_config, resolved
from components.errors import UserError
from pipelines.commands.common import ConfigOption, DebugOption, RootOption, reported, where
from pipelines.invocation import typed
from pipelines.local import default_root

if TYPE_CHECKING:
    from components.registry.aliases import Move
    from components.tracking import MlflowClient

ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Why; kept with the version.")]


def promote(
    version: Annotated[str | None, typer.Argument(help="A version's number; the challenger if not given.")] = None,
    reason: ReasonOption = "",
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    debug: DebugOption = False,
) -> None:
    """Make a version the champion, whatever the gate said."""
    with reported(debug):
        config = read_config(config_file)
        from components.registry.aliases import promote_by_hand

        client = _client(config, root)
        _told(config, promote_by_hand(client, config.name, version, by=getpass.getuser(), reason=_given(reason)))


def rollback(
    reason: ReasonOption = "",
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    debug: DebugOption = False,
) -> None:
    """Give the alias champion back to the version that had it before."""
    with reported(debug):
        config = read_config(config_file)
        from components.registry.aliases import roll_back

        client = _client(config, root)
        _told(config, roll_back(client, config.name, by=getpass.getuser(), reason=_given(reason)))


def history(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with all numbers and digests.")] = False,
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    debug: DebugOption = False,
) -> None:
    """List the versions: what changed, how they did, why they were promoted or not, and who serves."""
    with reported(debug):
        config = read_config(config_file)
        from components.registry.history import history as collect

        found = collect(_client(config, root), config.name)
        if as_json:
            typer.echo(json.dumps(found, indent=1))
            return
        if not found["versions"]:
            raise UserError(f"{config.name} has no version yet", remedy=typed("run", *where(config_file, root)))
        console = Console()
        console.print(_versions_table(found["versions"]))
        for one in found["versions"]:
            if one["decision"] in ("refused", "manual"):
                console.print(Text(f"version {one['version']} was not promoted: {one['reason']}"), soft_wrap=True)
        for move in found["moves"]:
            console.print(Text(_sentence(move)), soft_wrap=True)


def _client(config: RunConfig, root: Path | None) -> "MlflowClient":
    from components.registry.reference import of_config

    return of_config(resolved(config, root or default_root(config))).connect()


def _given(reason: str) -> str:
    if not reason.strip():
        raise UserError("a reason is needed: it is what the next person will look for", remedy='add -m "why"')
    return reason.strip()


def _told(config: RunConfig, move: "Move") -> None:
    instead = f" instead of version {move.instead_of}" if move.instead_of else ""
    typer.echo(f"version {move.version} of {config.name} is the champion{instead}")


def _versions_table(versions: list[dict[str, Any]]) -> Table:
    table = Table("version", "made", "alias", box=None, pad_edge=False)
    for column in ("metric, %", "to champion"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    table.add_column("what changed", overflow="fold")
    for one in versions:
        metric = one["metrics"].get("ensemble")
        table.add_row(
            one["version"],
            one["created"][:10],
            ", ".join(one["aliases"]),
            "" if metric is None else f"{100 * metric:.1f}",
            f"{100 * one['difference']:+.1f}" if one["difference"] is not None else "",
            "rolled back" if one["rolled_back"] is not None else one["decision"] or "none yet",
            Text(_changes(one["changed"])),
        )
    return table


def _changes(changed: dict[str, Any] | None) -> str:
    if changed is None:
        return "the first version"
    words = {"added": "+ {}", "removed": "- {}", "changed": "~ {}", "trained": "trained {}"}
    parts = [text.format(", ".join(changed[key])) for key, text in words.items() if changed[key]]
    parts += [word for key, word in (("start", "new theta*"), ("base", "another base model")) if changed[key]]
    return "; ".join(parts) or "weights only"


def _sentence(move: dict[str, Any]) -> str:
    verb = "rolled back to" if move["kind"] == "rolled_back" else "promoted"
    instead = f" instead of {move['instead_of']}" if move["instead_of"] else ""
    when = move["time"][:16].replace("T", " ")
    return f"{when}  {move['by']} {verb} version {move['version']}{instead}: {move['reason']}"
