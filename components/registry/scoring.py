"""Batch scoring with a registered version, whole or as shards of a pipeline."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

from components import tracking
from components.config import RunConfig, StorageConfig
from components.config_transport import unpack
from components.errors import UserError
from components.object_store import ObjectStore, open_store
from components.registry.register import fetch, version_number
from components.serving.predict import EnsemblePredictor, Mode
from components.serving.scoring import Job, gather, score


@contextmanager
def open_predictor(config: RunConfig, version: str) -> Iterator[EnsemblePredictor]:
    """The ensemble of a version; its files are on this machine while it is open."""
    client = tracking.connect(str(config.tracking.uri))
    with tempfile.TemporaryDirectory(prefix="loraloom-version-") as folder:
        yield EnsemblePredictor.load(fetch(client, config.name, version, Path(folder)))


@contextmanager
def open_job(config: RunConfig, source: str, output: str, version: str, mode: Mode, dataset: str = "") -> Iterator[Job]:
    """A scoring job; while open, a source in S3 has a copy on this machine.

    Raises:
        UserError: there is no such version or source.
    """
    number = version_number(tracking.connect(str(config.tracking.uri)), config.name, version)
    with tempfile.TemporaryDirectory(prefix="loraloom-score-") as temporary:
        path = Path(source)
        if source.startswith("s3://"):
            store, name = _place(config.storage, source)
            path = Path(temporary) / name
            try:
                store.download(name, path)
            except KeyError:
                raise UserError(f"there is no object {source}") from None
        elif not path.is_file():
            raise UserError(f"there is no file {source}")
        store, name = _place(config.storage, output)
        yield Job(path, store, name, number, mode, dataset)


def score_shard(config: str, job: str, shard: str) -> None:
    """One shard of a job, for a pod: ``job`` as :func:`open_job` takes it, ``shard`` as ``i/n``."""
    settings = unpack(config)
    index, count = (int(part) for part in shard.split("/"))
    with open_job(settings, **json.loads(job)) as opened, open_predictor(settings, opened.version) as predictor:
        score(opened, predictor, shard=index, shards=count)


def gather_shards(config: str, job: str) -> str:
    """Put the shards together; returns how many records were answered and refused, as JSON."""
    with open_job(unpack(config), **json.loads(job)) as opened:
        return json.dumps(vars(gather(opened)))


def pinned(config: str, job: str) -> str:
    """The job with the version's number in the place of an alias: an alias may move while pods are at work."""
    settings, told = unpack(config), json.loads(job)
    client = tracking.connect(str(settings.tracking.uri))
    return json.dumps({**told, "version": version_number(client, settings.name, told["version"])})


def _place(storage: StorageConfig, address: str) -> tuple[ObjectStore, str]:
    """The store that holds a file's folder, and the file's name."""
    if not address.startswith("s3://"):
        path = Path(address).absolute()
        return open_store(StorageConfig(uri=str(path.parent)), path.parent), path.name
    parent, _, name = address.rpartition("/")
    if not urlparse(parent).netloc or not name:
        raise UserError(f"{address} names no object", remedy="use s3://bucket/prefix/file")
    return open_store(storage.model_copy(update={"uri": parent}), Path()), name
