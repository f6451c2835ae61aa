"""Commands for using a registered ensemble: serve, predict, export."""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import Progress

from components.config import RunConfig
from components.config_file import read_config, resolved
from components.errors import UserError
from pipelines.commands.common import ConfigOption, DebugOption, RootOption, reported
from pipelines.local import default_root


def serve(
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    alias: Annotated[str, typer.Option(help="Which version: champion or challenger.")] = "champion",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8000,
    look: Annotated[float, typer.Option(help="Seconds between looks whether the alias has moved.", min=0.1)] = 30.0,
    debug: DebugOption = False,
) -> None:
    """Serve the champion over HTTP as MLflow's scoring server does, and follow promotions. Ctrl-C ends it.

    POST /invocations takes dataframe_records, dataframe_split, CSV or Parquet; GET /ping, /metrics.
    """
    with reported(debug):
        config = read_config(config_file)
        from components.registry.live_model import LiveModel
        from components.registry.server import serve as serve_model
        from components.serving.metrics import ServingMetrics
        from components.tracking import connect

        client = connect(str(resolved(config, root or default_root(config)).tracking.uri))
        live = LiveModel(client, config.name, alias, ServingMetrics())
        typer.echo(f"version {live.version} of {config.name} at http://{host}:{port}/invocations  (Ctrl-C ends it)")
        serve_model(live, host, port, look)


def predict(
    source: Annotated[str, typer.Argument(help="JSONL, CSV or Parquet file, here or s3://.")],
    output: Annotated[str, typer.Option("--output", "-o", help="File to write, here or s3://, of any of these kinds.")],
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    version: Annotated[str, typer.Option(help="A version's number, or an alias.")] = "champion",
    dataset: Annotated[str, typer.Option(help="Of records that name none; without it the router decides.")] = "",
    mode: Annotated[Literal["auto", "exact", "merged"], typer.Option(help="See docs/serving.md.")] = "auto",
    debug: DebugOption = False,
) -> None:
    """Score a file of records. Killed, the same command goes on; bad records go to OUTPUT.bad.jsonl."""
    with reported(debug):
        config = read_config(config_file)
        config = resolved(config, root or default_root(config))
        from components.registry.scoring import open_job, open_predictor
        from components.serving.scoring import gather, score

        with open_job(config, source, output, version, mode, dataset) as job, Progress(transient=True) as bar:
            task = bar.add_task(f"scoring with version {job.version}", total=None)
            with open_predictor(config, job.version) as predictor:
                score(job, predictor, progress=lambda rows: bar.advance(task, rows))
            done = gather(job)
        refused = f"; {done.refused} could not be, see {output}.bad.jsonl" if done.refused else ""
        typer.echo(f"{done.answered} records scored by version {job.version}: {output}{refused}")


def export(
    output: Annotated[str, typer.Option("--output", "-o", help="A new folder, or s3://bucket/prefix.")],
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    version: Annotated[str, typer.Option(help="A version's number, or an alias.")] = "champion",
    merge_into_base: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Also the base model with this dataset's adapter merged in.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Write plain PEFT folders with model cards, for vLLM, LoRAX or a notebook: OUTPUT/NAME/VERSION/."""
    with reported(debug):
        config = read_config(config_file)
        config = resolved(config, root or default_root(config))
        if output.startswith("s3://"):
            with tempfile.TemporaryDirectory(prefix="loraloom-export-") as temporary:
                folder, number = _export(config, version, Path(temporary), merge_into_base)
                where = _upload(config, folder, f"{output.rstrip('/')}/{config.name}/{number}")
        else:
            folder, _ = _export(config, version, Path(output), merge_into_base)
            where = str(folder)
        typer.echo(f"wrote {where}\n-> its README.md says how to load it")


def _export(config: RunConfig, version: str, target: Path, merged: str | None) -> tuple[Path, str]:
    """Export below ``target``; the folder and the version's number."""
    from components.artifacts import find
    from components.object_store import open_store
    from components.registry.register import fetch, version_number
    from components.serving.export import export as write
    from components.serving.export import merge_into_base
    from components.tracking import connect

    client = connect(str(config.tracking.uri))
    number = version_number(client, config.name, version)
    with tempfile.TemporaryDirectory(prefix="loraloom-version-") as temporary:
        ensemble = fetch(client, config.name, number, Path(temporary))
        evaluated = client.get_model_version(config.name, number).tags["predictions.key"]
        judged = find(open_store(config.storage, Path()), evaluated)
        folder = target / config.name / number
        write(ensemble, folder, number, judged.facts["results"] if judged else {})
        if merged is not None:
            merge_into_base(ensemble, merged, folder / "merged" / merged)
    return folder, number


def _upload(config: RunConfig, folder: Path, uri: str) -> str:
    from components.object_store import open_store

    store = open_store(config.storage.model_copy(update={"uri": uri}), Path())
    if any(True for _ in store.keys("")):
        raise UserError(f"{uri} is not empty", remedy="export to a new prefix")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        store.upload(path, path.relative_to(folder).as_posix())
    return uri
