"""The command that scores files: predict, here or on the cluster."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from components.config_file import read_config
from components.errors import UserError
from pipelines.commands.common import ConfigOption, DebugOption, RootOption, reported
from pipelines.commands.registered import ModelOption, VersionOption, registered_model

Mode = Literal["auto", "exact", "merged"]


def predict(
    source: Annotated[str, typer.Argument(help="JSONL, CSV or Parquet file, here or s3://.")],
    output: Annotated[str, typer.Option("--output", "-o", help="File to write, here or s3://, of any of these kinds.")],
    model: ModelOption = None,
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    version: VersionOption = None,
    dataset: Annotated[str, typer.Option(help="Of records that name none; without it the router decides.")] = "",
    mode: Annotated[Mode, typer.Option(help="See docs/serving.md.")] = "auto",
    submit: Annotated[bool, typer.Option("--submit", help="Score on the cluster of the config instead.")] = False,
    compile_to: Annotated[
        Path | None, typer.Option("--compile", help="Write that run's pipeline to this file instead.")
    ] = None,
    shards: Annotated[int, typer.Option(help="On the cluster: pods among which the file is divided.", min=1)] = 4,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow a submitted run.")] = False,
    debug: DebugOption = False,
) -> None:
    """Score a file of records. Killed, the same command goes on; bad records go to OUTPUT.bad.jsonl."""
    with reported(debug):
        job: dict[str, Any] = {"source": source, "output": output, "mode": mode, "dataset": dataset}
        if not submit and compile_to is None:
            _predict_here(model, config_file, root, version, job)
            return
        if model is not None:
            raise UserError(
                "--model goes without a config, and a run on the cluster takes its images and secrets from one",
                remedy="leave --model out; -c names the config",
            )
        job["version"] = version or "champion"
        if compile_to is not None:
            _compile(config_file, job, shards, compile_to)
        if submit:
            _submit(config_file, job, shards, no_wait)


def _predict_here(
    model: str | None, config_file: Path, root: Path | None, version: str | None, job: dict[str, Any]
) -> None:
    reference = registered_model(model, config_file, root, version)
    from components.registry.scoring import open_ensemble, open_job, pin
    from components.serving.predict import EnsemblePredictor
    from components.serving.scoring import gather, score

    reference = pin(reference)
    with open_job(reference, **job) as opened:
        with open_ensemble(reference) as folder, Progress(transient=True) as bar:
            task = bar.add_task(f"scoring with version {reference.version}", total=None)
            score(opened, EnsemblePredictor.load(folder), progress=lambda rows: bar.advance(task, rows))
        done = gather(opened)
    refused = f"; {done.refused} could not be, see {job['output']}.bad.jsonl" if done.refused else ""
    typer.echo(f"{done.answered} records scored by version {reference.version}: {job['output']}{refused}")


def _compile(config_file: Path, job: dict[str, Any], shards: int, output: Path) -> None:
    config = read_config(config_file)
    from pipelines.scoring import compile_scoring

    compile_scoring(config, job, shards, output)
    typer.echo(f"wrote {output}\n-> upload it to Kubeflow Pipelines; `job` and `shards` are parameters of its runs")


def _submit(config_file: Path, job: dict[str, Any], shards: int, no_wait: bool) -> None:
    from pipelines.commands.cluster import connected, follow_to_the_end
    from pipelines.submit import submit_scoring

    config, api = connected(config_file)
    follow_to_the_end(api, *submit_scoring(api, config, job, shards), config_file, no_wait)
    if not no_wait:
        Console().print(f"-> {job['output']}", soft_wrap=True, highlight=False)
