"""Commands for using a registered ensemble: serve, export."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.config import StorageConfig
from components.errors import UserError, writable
from pipelines.commands.common import ConfigOption, DebugOption, RootOption, reported
from pipelines.commands.registered import ModelOption, VersionOption, registered_model

if TYPE_CHECKING:
    from components.object_store import ObjectStore
    from components.registry.reference import ModelReference


def serve(
    model: ModelOption = None,
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    version: VersionOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8000,
    look: Annotated[float, typer.Option(help="Seconds between looks whether the alias has moved.", min=0.1)] = 30.0,
    debug: DebugOption = False,
) -> None:
    """Serve the champion over HTTP as MLflow's scoring server does, and follow promotions. Ctrl-C ends it.

    POST /invocations takes dataframe_records, dataframe_split, CSV or Parquet; GET /ping, /metrics.
    """
    with reported(debug):
        reference = registered_model(model, config_file, root, version)
        from components.registry.live_model import LiveModel
        from components.registry.server import bind
        from components.registry.server import serve as serve_model
        from components.serving.metrics import ServingMetrics

        listener = bind(host, port)
        live = LiveModel(reference.connect(), reference.name, reference.version, ServingMetrics())
        typer.echo(f"version {live.version} of {live.name} at http://{host}:{port}/invocations  (Ctrl-C ends it)")
        serve_model(live, listener, look)


def export(
    output: Annotated[str, typer.Option("--output", "-o", help="A new folder, or s3://bucket/prefix.")],
    model: ModelOption = None,
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    version: VersionOption = None,
    merge_into_base: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Also the base model with this dataset's adapter merged in.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Write plain PEFT folders with model cards, for vLLM, LoRAX or a notebook: OUTPUT/NAME/VERSION/."""
    with reported(debug):
        from components.registry.scoring import pin

        reference = pin(registered_model(model, config_file, root, version))
        place = f"{reference.name}/{reference.version}"
        if output.startswith("s3://"):
            where = f"{output.rstrip('/')}/{place}"
            store = _empty(reference.storage, where)  # before the work, which would be lost
            with tempfile.TemporaryDirectory(prefix="loraloom-export-") as temporary:
                _export(reference, Path(temporary), merge_into_base)
                for path in sorted(path for path in Path(temporary).rglob("*") if path.is_file()):
                    store.upload(path, path.relative_to(temporary).as_posix())
        else:
            where = str(Path(output) / place)
            _export(reference, Path(where), merge_into_base)
        typer.echo(f"wrote {where}\n-> its README.md says how to load it")


def _export(reference: "ModelReference", folder: Path, merged: str | None) -> None:
    from components.registry.scoring import open_ensemble
    from components.serving.description import dataset_settings, read_description
    from components.serving.export import export as write
    from components.serving.export import merge_into_base

    with open_ensemble(reference) as ensemble, writable(folder):
        if merged is not None:
            dataset_settings(read_description(ensemble), merged)  # a wrong name leaves no half of an export
        write(ensemble, folder, reference.version)
        if merged is not None:
            merge_into_base(ensemble, merged, folder / "merged" / merged)


def _empty(storage: StorageConfig, uri: str) -> "ObjectStore":
    """The store at ``uri``, where nothing stands yet."""
    from components.object_store import open_store

    store = open_store(storage.model_copy(update={"uri": uri}), Path())
    if any(True for _ in store.keys("")):
        raise UserError(f"{uri} is not empty", remedy="export to a new prefix")
    return store
