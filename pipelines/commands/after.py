"""Commands for what a run left behind: report, ui, lineage."""

import json
import os
import subprocess
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from components.config_file import read_config, resolved
from components.errors import UserError, writable
from components.object_store import open_store
from pipelines.commands.common import ConfigOption, DebugOption, RootOption, reported, where
from pipelines.commands.registered import registered_model
from pipelines.commands.store import ShareOption, share_report
from pipelines.invocation import typed
from pipelines.local import default_root


def report(
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it there instead of opening it.")] = None,
    share: ShareOption = None,
    debug: DebugOption = False,
) -> None:
    """Open the latest run's HTML report in a browser, write it to a file, or share it by a link."""
    with reported(debug):
        config = read_config(config_file)
        folder = root or default_root(config)
        if not (folder / "summary.json").is_file():
            raise UserError(f"no finished run in {folder}", remedy=typed("run", *where(config_file, root)))
        from components.ensemble.report import render_report

        page = (output or folder / "report.html").resolve()
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        with writable(page):
            page.write_text(render_report(summary), encoding="utf-8")
        typer.echo(f"wrote {page}")
        if share is not None:
            store = open_store(resolved(config, folder).storage, folder / "store")
            typer.echo(share_report(store, summary["run_id"], page, hours=share))
        elif output is None:
            webbrowser.open(page.as_uri())


def ui(
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 5000,
    debug: DebugOption = False,
) -> None:
    """Start MLflow's own pages on the embedded store of a local run. Ctrl-C ends them."""
    with reported(debug):
        config = read_config(config_file)
        folder = root or default_root(config)
        uri = resolved(config, folder).tracking.uri or ""
        if not uri.startswith("sqlite:///"):
            raise UserError(f"tracking.uri is {uri}, a server with pages of its own", remedy="open those in a browser")
        if not Path(uri.removeprefix("sqlite:///")).is_file():
            raise UserError(f"no run in {folder} yet", remedy=typed("run", *where(config_file, root)))
        typer.echo(f"http://127.0.0.1:{port}  (Ctrl-C ends it)")
        command = ["-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1"]
        # Without its job workers the server is two processes rather than ten.
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with suppress(KeyboardInterrupt):
            ended = subprocess.run([sys.executable, *command], env={**os.environ, **quiet}, check=False)  # noqa: S603
            raise typer.Exit(ended.returncode)


def lineage(
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    version: Annotated[str, typer.Option(help="A version's number, or an alias.")] = "challenger",
    debug: DebugOption = False,
) -> None:
    """Walk back from a registered ensemble to every adapter, matrix, dataset, base model and commit, as JSON."""
    with reported(debug):
        reference = registered_model(None, config_file, root, version)
        from components.registry.lineage import lineage as walk_back
        from components.registry.register import version_number

        client = reference.connect()
        number = version_number(client, reference.name, reference.version)
        typer.echo(json.dumps(walk_back(client, reference.name, number), indent=1))
