"""Commands for the time before a run: init, schema, check."""

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.config import RunConfig
from components.errors import UserError, writable
from pipelines.commands.common import ConfigOption, DebugOption, reported
from pipelines.invocation import typed

if TYPE_CHECKING:
    from components.prepared import PreparedDataset


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("config.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    debug: DebugOption = False,
) -> None:
    """Write a commented config to start from."""
    with reported(debug):
        if path.exists() and not force:
            raise UserError(f"{path} exists already", remedy="give another name, or --force to replace it")
        if not path.parent.is_dir():
            raise UserError(f"there is no folder {path.parent}", remedy="make it first, or give another path")
        with writable(path):
            path.write_text(resources.files("pipelines").joinpath("starter.yaml").read_text("utf-8"), encoding="utf-8")
        typer.echo(f"wrote {path}\n-> set model and datasets in it, then: {typed('check', '-c', path)}")


def schema(debug: DebugOption = False) -> None:
    """Print the config's JSON schema; editors complete and check with it.

    Save it beside the config and put this on the config's first line:
    # yaml-language-server: $schema=schema.json
    """
    with reported(debug):
        typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2))


def check(
    config_file: ConfigOption = Path("config.yaml"),
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Also compare gradients in a batch with gradients one at a time.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Check the config, a local model's files and every row of the data; list all problems at once.

    The config comes first and takes milliseconds. Where it is fine, the data are read to the last row.
    """
    with reported(debug, all_problems=True):
        from components.config_file import read_config

        config = read_config(config_file)
        from pipelines.checks import check as check_all

        console = Console()
        with console.status(f"reading {len(config.datasets)} datasets"):
            findings = check_all(config)
        for note in findings.notes:
            console.print(Text.assemble(("note: ", "yellow"), note), soft_wrap=True)
        if findings.problems:
            count = "1 problem" if len(findings.problems) == 1 else f"{len(findings.problems)} problems"
            raise UserError(
                f"{count} in the data or the model of {config_file}",
                problems=findings.problems,
                remedy="mend these; where rows are bad, the dataset's 'on_bad_rows: drop' leaves them out",
            )
        console.print(_datasets_table(findings.datasets))
        if gradients:
            _check_gradients(console, config, findings.datasets)
        console.print(Text(f"{config_file} is fine\n-> {typed('plan', '-c', config_file)}"), soft_wrap=True)


def _check_gradients(console: Console, config: RunConfig, datasets: tuple["PreparedDataset", ...]) -> None:
    from pipelines.checks import check_gradients

    with console.status("loading the model, comparing gradients"):
        found = check_gradients(config, datasets)
    said = (
        f"gradients of {found.rows} rows, {found.parameters} LoRA matrices each, in a batch and one at a time: largest "
        f"relative difference {found.largest:.1e} ({found.where}); rounding explains {found.tolerance:.0e}"
    )
    if not found.ok:
        raise UserError(f"{said}. They do not agree", remedy="try model.dtype: float32; else name other lora.targets")
    console.print(Text(f"{said}. They agree"), soft_wrap=True)


def _datasets_table(datasets: tuple["PreparedDataset", ...]) -> Table:
    table = Table("dataset", box=None, pad_edge=False)
    for column in ("train", "validation", "test", "dropped", "labels"):
        table.add_column(column, justify="right")
    table.add_column("metric")
    for dataset in datasets:
        rows = dataset.counts["rows"]
        counts = [str(rows[split]) for split in ("train", "validation", "test")]
        dropped = str(sum(dataset.counts["dropped"].values()))
        labels = "text" if dataset.completion else str(len(dataset.labels))
        table.add_row(dataset.name, *counts, dropped, labels, dataset.metric)
    return table
