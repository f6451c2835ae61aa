"""Puts local data and a local base model into the store, where containers and pods can reach them.

A staged source is an artifact, ``staged/<digest>/``: its files below the dataset's name (or ``model``), the manifest
last. The digest is over names and contents, so what has not changed is uploaded once. The keys of prepared datasets
and of everything made with the model hold content and no address, so staging changes none of them.
"""

import time
from pathlib import Path

from components import events
from components.artifacts import MANIFEST, digest_of, file_digest, files_key, put
from components.base_model import model_files
from components.config import DatasetConfig, ModelConfig, RunConfig
from components.errors import UserError
from components.object_store import LocalStore, ObjectStore

STEP, KIND, MODEL = "stage", "staged", "model"
SAVED_BY_DATASETS = ("dataset_dict.json", "dataset_info.json", "state.json")

Files = dict[str, Path]  # name in the artifact -> file on this machine


def stage(config: RunConfig, store: ObjectStore) -> RunConfig:
    """Put every local dataset and a local base model into ``store``; returns the config with their addresses there.

    Addresses are ``s3://...`` in a bucket and paths in a local store. What the store has already is left as it is.

    Raises:
        UserError: a dataset's path holds no data (all such at once), or the model's folder holds no model.
    """
    data = {entry.name: _data_files(entry) for entry in config.datasets if _is_local(entry)}
    if empty := [name for name, files in data.items() if not files]:
        raise UserError(
            "some datasets are not there",
            problems=tuple(f"{name}: path: there is no data at {config.dataset(name).path}" for name in empty),
            remedy="relative paths start at the config file's folder",
        )
    model = _stage_model(config, store)
    addresses = {name: _keep(store, files, name) for name, files in data.items()}
    datasets = [
        entry.model_copy(update={"path": addresses[entry.name]}) if entry.name in addresses else entry
        for entry in config.datasets
    ]
    return config.model_copy(update={"datasets": datasets, "model": model})


def local_sources(config: RunConfig) -> list[str]:
    """The datasets that lie on this machine, by name."""
    return [entry.name for entry in config.datasets if _is_local(entry)]


def _stage_model(config: RunConfig, store: ObjectStore) -> ModelConfig:
    """The model's settings with its address in ``store``; a model on the hub stays there."""
    if not Path(config.model.id).is_dir():
        return config.model
    files = {f"{MODEL}/{path.name}": path for path in model_files(config.model)}
    return config.model.model_copy(update={"id": _keep(store, files, MODEL), "storage": config.storage})


def _is_local(entry: DatasetConfig) -> bool:
    return entry.path is not None and "://" not in entry.path


def _data_files(entry: DatasetConfig) -> Files:
    """What a run may read of a dataset's path, below the dataset's name: never everything that lies about there."""
    from components.formats import FORMATS  # brings pyarrow

    path = Path(str(entry.path))
    if path.is_file():
        return {f"{entry.name}{path.suffix}": path}
    return {
        f"{entry.name}/{file.relative_to(path).as_posix()}": file
        for file in sorted(path.rglob("*"))
        if file.is_file() and (file.suffix in {*FORMATS, ".arrow"} or file.name in SAVED_BY_DATASETS)
    }


def _keep(store: ObjectStore, files: Files, what: str) -> str:
    """Put the files into the store unless they are there; returns the address of the folder or file at their top."""
    started = time.monotonic()
    events.started(STEP, what)
    digests = {name: file_digest(path) for name, path in files.items()}
    key = f"{KIND}/{digest_of(digests)[:32]}"
    known = store.exists(f"{key}/{MANIFEST}")
    if not known:
        put(store, KIND, {"source": what}, lambda folder: _link(files, folder), key=key)
    events.finished(STEP, what, known, time.monotonic() - started)
    top = f"{files_key(store, key)}/{next(iter(files)).partition('/')[0]}"
    return str(store.root / top) if isinstance(store, LocalStore) else store.uri(top)


def _link(files: Files, folder: Path) -> dict[str, int]:
    """Fill ``folder`` with links rather than copies: a model's weights may be large."""
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(path.resolve())
    return {"bytes": sum(path.stat().st_size for path in files.values())}
