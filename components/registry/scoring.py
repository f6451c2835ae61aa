"""Batch scoring with a registered version, whole or as shards of a pipeline."""

import errno
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from components.config import StorageConfig
from components.config_transport import unpack
from components.errors import UserError, writable
from components.object_store import ObjectStore, open_store
from components.registry.reference import ModelReference, of_config
from components.registry.register import fetch, version_number
from components.serving.predict import EnsemblePredictor, Mode
from components.serving.scoring import Job, gather, score


def pin(model: ModelReference) -> ModelReference:
    """The same with the version's number in the place of an alias, which may move meanwhile.

    Raises:
        UserError: there is no such version.
    """
    return replace(model, version=version_number(model.connect(), model.name, model.version))


@contextmanager
def open_ensemble(model: ModelReference) -> Iterator[Path]:
    """The ensemble folder of a version given by number; it is on this machine while open."""
    with tempfile.TemporaryDirectory(prefix="loraloom-version-") as folder:
        yield fetch(model.connect(), model.name, model.version, Path(folder))


@contextmanager
def open_job(model: ModelReference, source: str, output: str, mode: Mode, dataset: str = "") -> Iterator[Job]:
    """A scoring job for a version given by number; while open, a source in S3 has a copy on this machine.

    Raises:
        UserError: there is no such source, or the output would replace it or cannot be written.
    """
    taken = [_resolved(name) for name in (output, f"{output}.bad.jsonl")]
    if _resolved(source) in taken:
        raise UserError(f"{output} would replace {source}, its source", remedy="write the answers to another file")
    with tempfile.TemporaryDirectory(prefix="loraloom-score-") as temporary:
        path = Path(source)
        if source.startswith("s3://"):
            store, name = _place(model.storage, source)
            path = Path(temporary) / name
            try:
                store.download(name, path)
            except KeyError:
                raise UserError(f"there is no object {source}", remedy="check bucket and key") from None
        elif not path.is_file():
            raise UserError(f"there is no file {source}", remedy="relative paths start at the folder you are in")
        store, name = _place(model.storage, output)
        yield Job(path, store, name, model.version, mode, dataset)


def score_shard(config: str, job: str, shard: str) -> None:
    """One shard (``i/n``) of a pinned job (a JSON object: version, source, output, mode, dataset), for a pod."""
    index, count = (int(part) for part in shard.split("/"))
    model, told = _read(config, job)
    with open_job(model, **told) as opened, open_ensemble(model) as folder:
        score(opened, EnsemblePredictor.load(folder), shard=index, shards=count)


def gather_shards(config: str, job: str) -> str:
    """Put the shards together; returns how many records were answered and refused, as JSON."""
    model, told = _read(config, job)
    with open_job(model, **told) as opened:
        return json.dumps(vars(gather(opened)))


def pinned_job(config: str, job: str) -> str:
    """The job with the version's number in the place of an alias."""
    model, told = _read(config, job)
    return json.dumps({**told, "version": pin(model).version})


def _read(config: str, job: str) -> tuple[ModelReference, dict[str, Any]]:
    told = json.loads(job)
    return of_config(unpack(config), told.pop("version")), told


def _resolved(address: str) -> str:
    """The address, the same however a local one is spelt."""
    return address if address.startswith("s3://") else str(Path(address).resolve())


def _place(storage: StorageConfig, address: str) -> tuple[ObjectStore, str]:
    """The store that holds a file's folder, and the file's name."""
    if not address.startswith("s3://"):
        path = Path(address).absolute()
        with writable(address):  # to be told before the scoring, not after it
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder", address)
            tempfile.TemporaryFile(dir=path.parent).close()
        return open_store(StorageConfig(uri=str(path.parent)), path.parent), path.name
    parent, _, name = address.rpartition("/")
    if not urlparse(parent).netloc or not name:
        raise UserError(f"{address} names no object", remedy="use s3://bucket/prefix/file")
    return open_store(storage.model_copy(update={"uri": parent}), Path()), name
