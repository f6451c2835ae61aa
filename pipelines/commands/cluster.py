"""Commands for a Kubeflow cluster: compile, submit, schedule, status."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from components.config import RunConfig
from components.config_file import read_config
from components.errors import UserError
from pipelines.catalogue import PIPELINES, Until, check_until, graph_of
from pipelines.commands.common import INTERRUPTED, ConfigOption, DebugOption, reported
from pipelines.invocation import typed

if TYPE_CHECKING:
    from pipelines.kfp_api import Api

NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Do not follow the run; it goes on either way.")]
UntilOption = Annotated[
    Until, typer.Option(help="Which pipeline, by its last step; judge is that of `validate`, confirm that of `select`.")
]
RUNS_SHOWN = 10
# What a pipeline leaves for people in MLflow, by its last step; the others leave nothing there.
IN_MLFLOW: dict[Until, str] = {
    "promote": "report.html, unless nothing had changed",
    "judge": "validation.html",
    "confirm": "selection.json",
}


def compile_(
    config_file: ConfigOption = Path("config.yaml"),
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("pipeline.yaml"),
    until: UntilOption = "promote",
    debug: DebugOption = False,
) -> None:
    """Write the pipeline as IR YAML for Kubeflow Pipelines, with the images and resources of the config.

    Sources on this machine stay here; `loraloom submit` takes them along.
    """
    with reported(debug):
        config = read_config(config_file)
        check_until(config, until)
        from pipelines.cluster import compile_pipeline

        compile_pipeline(config, output, graph_of(PIPELINES[until]))
        instead = typed("submit", "-c", config_file, *(["--until", until] if until != "promote" else []))
        typer.echo(f"wrote {output}\n-> upload it to Kubeflow Pipelines, or let {instead} do it")


def submit(
    config_file: ConfigOption = Path("config.yaml"),
    until: UntilOption = "promote",
    no_wait: NoWaitOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the pipeline on the cluster: local sources go into the store first. Follows the run to its end.

    Where a run of the very same is at work already, that one is followed.
    """
    with reported(debug):
        config, api = connected(config_file)
        from pipelines.submit import submit

        run, new = submit(api, config, until)
        follow_to_the_end(api, run, new, config_file, no_wait)
        if not no_wait and until in IN_MLFLOW:
            typer.echo(f"-> in MLflow at {config.tracking.uri}, run {run.run_id}: {IN_MLFLOW[until]}")


def follow_to_the_end(api: "Api", run: Any, new: bool, config_file: Path, no_wait: bool) -> None:
    """Say where a submitted run is; and show its steps until it ends, unless nobody waits for that.

    Ctrl-C ends the showing only, and the exit code says so.
    """
    from pipelines.follow import follow
    from pipelines.progress import open_view

    page, again = api.run_page(run.run_id), typed("status", run.run_id, "-c", config_file)
    typer.echo(f"{'started' if new else 'already at work:'} {run.display_name} ({run.run_id})\n{page}")
    if no_wait:
        typer.echo(f"-> {again}")
        return
    try:
        with open_view(Console()) as view:
            follow(api, run.run_id, view, again)
    except KeyboardInterrupt:
        typer.echo(f"stopped showing {run.display_name}, which goes on\n-> {again}")
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"{run.display_name} succeeded")


def status(
    run_id: Annotated[str | None, typer.Argument(help="A run's id; without it the latest runs are listed.")] = None,
    config_file: ConfigOption = Path("config.yaml"),
    debug: DebugOption = False,
) -> None:
    """Show the latest runs on the cluster, or the steps of one."""
    with reported(debug):
        config, api = connected(config_file)
        if run_id is not None:
            _show_steps(api, run_id)
            return
        from pipelines.submit import latest_runs

        runs = latest_runs(api, config, RUNS_SHOWN)
        if not runs:
            raise UserError(f"no run of {config.name} yet", remedy=typed("submit", "-c", config_file))
        rows = [(run.run_id, run.display_name, _word(run.state), _moment(run.created_at)) for run in runs]
        _print_rows(("id", "run", "state", "started"), *rows)


schedule = typer.Typer(
    help="Retrain on the cluster by the config's schedule. Without a subcommand: create or replace it.",
    invoke_without_command=True,
)


@schedule.callback()
def create_schedule(
    context: typer.Context,
    given: Annotated[
        Path | None, typer.Option("--config", "-c", help="The run's config file; config.yaml if not given.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Create or replace the config's recurring run; runs never overlap, and missed ones are not made up for."""
    with reported(debug):
        if context.invoked_subcommand is not None:
            if given is not None:
                command = typed("schedule", context.invoked_subcommand, "-c", given)
                raise UserError("-c stands before the subcommand, which would not see it", remedy=command)
            return
        config, api = connected(given or Path("config.yaml"))
        from pipelines.schedule import schedule
        from pipelines.staging import local_sources

        if local := local_sources(config):
            note = f"{', '.join(local)}: on this machine; every run takes the copy of now, and finds no new rows"
            Console().print(Text.assemble(("note: ", "yellow"), note), soft_wrap=True)
        entry, new = schedule(api, config)
        times = entry.trigger.cron_schedule.cron
        typer.echo(f"{'scheduled' if new else 'unchanged:'} {config.name} at '{times}' ({entry.recurring_run_id})")


@schedule.command("list")
def list_schedules(config_file: ConfigOption = Path("config.yaml"), debug: DebugOption = False) -> None:
    """Show the config's schedule on the cluster."""
    with reported(debug):
        _, _, found = _scheduled(config_file)
        _print_rows(("id", "schedule", "times", "state", "since"), *(_schedule_row(entry) for entry in found))


@schedule.command("pause")
def pause_schedule(config_file: ConfigOption = Path("config.yaml"), debug: DebugOption = False) -> None:
    """Let the schedule rest."""
    with reported(debug):
        config, api, found = _scheduled(config_file)
        from pipelines.schedule import pause

        pause(api, found)
        typer.echo(f"paused {config.name}\n-> {typed('schedule', 'resume', '-c', config_file)}")


@schedule.command("resume")
def resume_schedule(config_file: ConfigOption = Path("config.yaml"), debug: DebugOption = False) -> None:
    """Let the schedule go on; what it missed stays missed."""
    with reported(debug):
        config, api, found = _scheduled(config_file)
        from pipelines.schedule import resume

        resume(api, found)
        typer.echo(f"resumed {config.name}")


@schedule.command("delete")
def delete_schedule(config_file: ConfigOption = Path("config.yaml"), debug: DebugOption = False) -> None:
    """Remove the schedule; its runs stay."""
    with reported(debug):
        config, api, found = _scheduled(config_file)
        from pipelines.schedule import delete

        delete(api, found)
        typer.echo(f"deleted the schedule of {config.name}; its runs stay")


def connected(config_file: Path) -> tuple[RunConfig, "Api"]:
    """The config, and a client of its cluster."""
    config = read_config(config_file)
    from pipelines.kfp_api import connect

    return config, connect(config.cluster)


def _scheduled(config_file: Path) -> tuple[RunConfig, "Api", list[Any]]:
    """The config, a client of its cluster, and the config's schedules there; it is an error to have none."""
    config, api = connected(config_file)
    from pipelines.schedule import recurring_runs

    found = recurring_runs(api, config)
    if not found:
        raise UserError(f"{config.name} has no schedule", remedy=typed("schedule", "-c", config_file))
    return config, api, found


def _show_steps(api: "Api", run_id: str) -> None:
    from pipelines.follow import get_run, step_states

    run = get_run(api, run_id)
    typer.echo(f"{run.display_name}: {_word(run.state)}\n{api.run_page(run_id)}")
    rows = [
        (" ".join(filter(None, (state.step, state.part))), _word(state.state), f"{state.seconds:.0f}", state.message)
        for state in step_states(run)
    ]
    _print_rows(("step", "state", "seconds", ""), *rows)


def _schedule_row(entry: Any) -> tuple[str, ...]:
    times = entry.trigger.cron_schedule.cron if entry.trigger and entry.trigger.cron_schedule else "-"
    state = {"ENABLED": "on", "DISABLED": "paused"}.get(entry.status, "unknown")
    return entry.recurring_run_id, entry.display_name, times, state, _moment(entry.created_at)


def _word(state: str | None) -> str:
    return (state or "PENDING").lower()


def _print_rows(*rows: tuple[str, ...]) -> None:
    """Rows in columns. Nothing is cut or folded, however narrow the terminal: an id is there to be copied."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _moment(moment: Any) -> str:
    """A time as this machine's clock shows it."""
    if not isinstance(moment, datetime):
        return "-"
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone().strftime("%Y-%m-%d %H:%M")
