"""MLflow: runs, children, parameters, metrics, dataset lineage and adapters, always by explicit id.

The fluent API keeps an *active run* in the process and takes one from ``MLFLOW_RUN_ID``; a scheduler that sets it would
move our numbers into a run of its own. So everything here goes through :class:`MlflowClient` with the run's id in hand,
which also lets any pod add to a run that another one opened.
"""

import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read while mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.entities.model_registry import ModelVersion as ModelVersion  # for model_versions.py
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from components.errors import UserError
from components.flat_params import flat_params
from components.git_sha import git_sha

PARENT = "mlflow.parentRunId"
CONTEXT = "mlflow.data.context"
# MLflow's own limits: characters of a dataset's digest, entries of one batch.
DIGEST_LENGTH = 32
PARAMS_A_BATCH, METRICS_A_BATCH = 100, 1000
SERVER_TIMEOUT = 20  # seconds to the first answer


@dataclass(frozen=True)
class DatasetUse:
    """A dataset as a run used it.

    Attributes:
        digest: of the prepared dataset, 64 hex digits.
        uri: where the prepared dataset stands in the object store.
        rows: split -> rows.
        context: what for: training, evaluation...
    """

    name: str
    digest: str
    uri: str
    rows: Mapping[str, int]
    context: str = "training"


@functools.cache
def connect(uri: str) -> MlflowClient:
    """A client of the store at ``uri``, checked to answer; a fresh embedded store is initialised once.

    Raises:
        UserError: the server cannot be reached or refuses us, or the address is none that MLflow takes.
    """
    try:
        if uri.startswith("sqlite:///"):
            _initialise(uri)
        elif uri.startswith(("http://", "https://")):
            # The client's own patience is minutes; a wrong address should show in seconds.
            http_request(get_default_host_creds(uri), "/health", "GET", max_retries=1, timeout=SERVER_TIMEOUT)
        return _client(uri)
    except MlflowException as error:
        raise UserError(
            f"the MLflow store at {uri} does not answer: {str(error).splitlines()[0][:300]}",
            remedy="check tracking.uri (http(s)://host:port), that the server runs, and MLFLOW_TRACKING_USERNAME, "
            "MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN; without tracking.uri an embedded store is used",
        ) from error


def _client(uri: str) -> MlflowClient:
    """A client that has asked both the tracking store and the registry something."""
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_experiments(max_results=1)
    client.search_registered_models(max_results=1)
    return client


def _initialise(uri: str) -> None:
    """Create an embedded store while nobody else does: two processes that create its tables at once both fail.

    It is made in a folder of its own: a database whose making was killed would be refused ever after.
    """
    database = _database(uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if not database.exists():
            with tempfile.TemporaryDirectory(dir=database.parent, prefix="loraloom-") as folder:
                _client(f"sqlite:///{folder}/{database.name}")
                (Path(folder) / database.name).rename(database)


def _database(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///"))


def open_run(
    client: MlflowClient,
    experiment: str,
    run_name: str,
    tags: Mapping[str, str] | None = None,
    artifact_location: str | None = None,
    under: str | None = None,
) -> str:
    """Open the parent run of a pipeline run.

    Args:
        artifact_location: where a *new* experiment keeps its artifacts; by default beside an embedded store, or
            wherever the server puts them.
        under: a run to hang it under; it then goes into that run's experiment, where alone MLflow shows it there.

    Returns:
        The run's id.

    Raises:
        UserError: the experiment was deleted.
    """
    if under:
        return _create(client, client.get_run(under).info.experiment_id, run_name, {**(tags or {}), PARENT: under})
    experiment_id = _experiment(client, experiment, artifact_location or _beside(client.tracking_uri, experiment))
    return _create(client, experiment_id, run_name, tags or {})


@contextmanager
def child_run(
    client: MlflowClient, parent_run_id: str, name: str, tags: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A child of ``parent_run_id`` called ``name``: FINISHED when the block ends, FAILED when it raises.

    A step that is tried again goes on in the child of its first attempt.

    Yields:
        The child's run id.
    """
    parent = client.get_run(parent_run_id).info.experiment_id
    query = f"tags.`{PARENT}` = '{parent_run_id}' and attributes.run_name = '{name}'"
    earlier = client.search_runs([parent], query, max_results=1)
    if earlier:
        run_id = earlier[0].info.run_id
        client.update_run(run_id, status="RUNNING")
        set_tags(client, run_id, tags or {})
    else:
        run_id = _create(client, parent, name, {**(tags or {}), PARENT: parent_run_id})
    try:
        yield run_id
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def close_run(client: MlflowClient, run_id: str, *, failed: bool = False) -> None:
    """End a parent run, and as failed those of its children that nobody ended: their process was killed."""
    experiment_id = client.get_run(run_id).info.experiment_id
    query = f"tags.`{PARENT}` = '{run_id}' and attributes.status = 'RUNNING'"
    for child in client.search_runs([experiment_id], query, max_results=1000):
        client.set_terminated(child.info.run_id, "FAILED")
    client.set_terminated(run_id, "FAILED" if failed else "FINISHED")


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run; existing ones are replaced."""
    for key, value in tags.items():
        client.set_tag(run_id, key, value)


def log_params(client: MlflowClient, run_id: str, settings: Mapping[str, Any]) -> None:
    """Log a nested mapping (a config) as flat parameters, ``a.b.c``; and whole, as ``config.json``.

    A value over MLflow's limit is cut and ends in its digest, so that different values stay different.
    """
    params = [Param(key, value) for key, value in flat_params(settings).items()]
    for start in range(0, len(params), PARAMS_A_BATCH):
        client.log_batch(run_id, params=params[start : start + PARAMS_A_BATCH], synchronous=True)
    client.log_dict(run_id, dict(settings), "config.json")


def log_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics in as few requests as MLflow allows."""
    _log_points(client, run_id, [(key, value, step) for key, value in metrics.items()])


def log_curve(client: MlflowClient, run_id: str, points: Sequence[Mapping[str, float]], prefix: str = "") -> None:
    """Log a training curve: point i of every quantity at step i + 1; epochs, being fractions, are a quantity too."""
    _log_points(
        client, run_id, [(prefix + key, value, i + 1) for i, point in enumerate(points) for key, value in point.items()]
    )


def _log_points(client: MlflowClient, run_id: str, points: Sequence[tuple[str, float, int]]) -> None:
    now = int(time.time() * 1000)
    metrics = [Metric(key, float(value), now, step) for key, value, step in points]
    for start in range(0, len(metrics), METRICS_A_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_BATCH], synchronous=True)


def log_folder(client: MlflowClient, run_id: str, folder: Path, artifact_path: str, digest: str) -> None:
    """Log an artifact's folder as it is under ``artifact_path``, its digest as the tag ``digest.<artifact_path>``."""
    client.log_artifacts(run_id, str(folder), artifact_path)
    client.set_tag(run_id, f"digest.{artifact_path}", digest)


def log_bytes(client: MlflowClient, run_id: str, data: bytes, artifact_path: str) -> None:
    """Log a file that was made in memory, an image say, under ``artifact_path``."""
    folder, _, name = artifact_path.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="loraloom-") as temporary:
        path = Path(temporary) / name
        path.write_bytes(data)
        client.log_artifact(run_id, str(path), folder or None)


def log_datasets(client: MlflowClient, run_id: str, datasets: Sequence[DatasetUse]) -> None:
    """Record which datasets a run used, by our digest.

    MLflow keeps the first 32 digits as *the* digest (``dataset.digest = '...'`` finds the run); all 64 stand in the
    input's tag ``digest``.
    """
    inputs = [
        DatasetInput(
            Dataset(
                name=use.name,
                digest=use.digest[:DIGEST_LENGTH],
                source_type="s3" if use.uri.startswith("s3://") else "local",
                source=json.dumps({"uri": use.uri}),
                profile=json.dumps({"rows": dict(use.rows)}, sort_keys=True),
            ),
            [InputTag(CONTEXT, use.context), InputTag("digest", use.digest)],
        )
        for use in datasets
    ]
    insist(lambda: client.log_inputs(run_id, inputs))


def insist(change: Callable[[], object]) -> None:
    """Make a change that somebody else may be making at the same time.

    MLflow inserts what it does not find, so of two that come at once one is refused. Asked again, it finds it.
    """
    try:
        change()
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        change()


def _create(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
    origin = {"mlflow.source.name": "loraloom", "mlflow.source.git.commit": git_sha()}
    return client.create_run(experiment_id, tags={**origin, **tags}, run_name=name).info.run_id


def _experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    """The experiment's id; whoever loses the race to create it takes the winner's."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifact_location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return _experiment(client, name, artifact_location)
    if found.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment {name!r} was deleted",
            remedy=f"restore it (mlflow experiments restore -x {found.experiment_id}) or set tracking.experiment",
        )
    return found.experiment_id


def _beside(uri: str, experiment: str) -> str | None:
    """An embedded store's artifacts lie beside its database; MLflow's default is the process's working folder."""
    if not uri.startswith("sqlite:///"):
        return None
    return (_database(uri).parent.resolve() / "mlflow-artifacts" / experiment.strip("/")).as_uri()
