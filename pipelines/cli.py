"""The `loraloom` command. Heavy imports wait inside the commands, so that help and config errors come at once."""

from typing import Annotated

import typer

from components import __version__
from pipelines.commands import after, before, cluster, registry, running, scoring, serving, store, trust

app = typer.Typer(
    name="loraloom",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Turn many datasets and one base model into an ensemble of a few QLoRA adapters.\n\n"
    "First time: [bold]loraloom demo[/bold]. With data of your own: [bold]loraloom init[/bold], edit config.yaml, then "
    "[bold]check[/bold], [bold]plan[/bold] and [bold]run[/bold].",
    epilog="Exit codes: 0 done, 2 something for you to put right, 1 a crash, 130 stopped.",
)
START, LOCAL, RESULTS, CLUSTER = "Start", "Run on this machine", "Look at results", "Run on a cluster"
TRUST = "Ask and check the estimates"
SERVES, USE = "Decide who serves", "Use the ensemble"

app.command(rich_help_panel=START)(before.init)
app.command(rich_help_panel=START)(before.check)
app.command(rich_help_panel=START)(before.schema)
app.command(rich_help_panel=START)(running.demo)
app.command(rich_help_panel=LOCAL)(running.plan)
app.command(rich_help_panel=LOCAL)(running.run)
app.command(rich_help_panel=LOCAL)(running.resume)
app.command(rich_help_panel=TRUST)(trust.validate)
app.command(rich_help_panel=TRUST)(trust.select)
app.command(rich_help_panel=RESULTS)(after.report)
app.command(rich_help_panel=RESULTS)(after.ui)
app.command(rich_help_panel=RESULTS)(after.lineage)
app.command(rich_help_panel=RESULTS)(store.gc)
app.command(rich_help_panel=SERVES)(registry.history)
app.command(rich_help_panel=SERVES)(registry.promote)
app.command(rich_help_panel=SERVES)(registry.rollback)
app.command("compile", rich_help_panel=CLUSTER)(cluster.compile_)
app.command(rich_help_panel=CLUSTER)(cluster.submit)
app.add_typer(cluster.schedule, name="schedule", rich_help_panel=CLUSTER)
app.command(rich_help_panel=CLUSTER)(cluster.status)
app.command(rich_help_panel=USE)(serving.serve)
app.command(rich_help_panel=USE)(scoring.predict)
app.command(rich_help_panel=USE)(serving.export)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"loraloom {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
