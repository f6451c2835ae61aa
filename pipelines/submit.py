"""Hands the pipeline to Kubeflow Pipelines: the config's sources into the store, a version, a run.

Each step looks for what is there before it makes anything, by content: a version is named after the digest of what it
holds, and a run that is at work on a version is *the* run of it. So a submit that was cut off anywhere, or whose answer
was lost, is repeated with nothing done twice.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import __version__
from components.config import RunConfig
from components.errors import UserError
from components.object_store import open_store
from pipelines.catalogue import PIPELINES, Until, check_until, graph_of
from pipelines.cluster import check_cluster, compile_pipeline
from pipelines.kfp_api import Api, called, once
from pipelines.scoring import compile_scoring
from pipelines.staging import stage

AT_WORK = ("PENDING", "RUNNING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED")
LOOKED_THROUGH = 50  # latest runs, for one at work


@dataclass(frozen=True)
class Version:
    """A version of the pipeline as Kubeflow Pipelines has it."""

    pipeline_id: str
    version_id: str
    name: str


def submit(api: Api, config: RunConfig, until: Until = "promote") -> tuple[Any, bool]:
    """Create a run of ``config``; or find the one that is at work on the very same.

    Args:
        until: which pipeline, by the step that it ends with.

    Returns:
        KFP's run, and whether it is new.

    Raises:
        UserError: the config cannot work on a cluster, a source is missing, or the API fails.
    """
    return _run(api, config, upload(api, config, until), config.name)


def submit_scoring(api: Api, config: RunConfig, job: Mapping[str, str], shards: int) -> tuple[Any, bool]:
    """Create a run that scores ``job`` (see :func:`~pipelines.scoring.compile_scoring`); or find the one at work on it.

    Returns and raises what :func:`submit` does.
    """
    name = f"{config.name}-scoring"
    version = _keep_version(api, name, lambda package: compile_scoring(config, job, shards, package))
    return _run(api, config, version, name)


def _run(api: Api, config: RunConfig, version: Version, name: str) -> tuple[Any, bool]:
    """The run of a version that is at work, or a new one; and whether it is new."""
    experiment = experiment_id(api, config)
    at_work = run_at_work(api, experiment, version)
    if at_work is not None:
        return at_work, False

    def create() -> Any:
        with api.asked("create the run"):
            return api.client.run_pipeline(
                experiment,
                f"{name}-{time.strftime('%Y%m%d-%H%M%S')}",
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=config.cluster.service_account,
            )

    return once(lambda: run_at_work(api, experiment, version), create), True


def run_at_work(api: Api, experiment: str, version: Version) -> Any | None:
    """The latest run of a version that has not ended, if there is one."""
    for run in _runs(api, experiment, LOOKED_THROUGH):
        reference = run.pipeline_version_reference
        if reference and reference.pipeline_version_id == version.version_id and (run.state or AT_WORK[0]) in AT_WORK:
            return run
    return None


def latest_runs(api: Api, config: RunConfig, count: int) -> list[Any]:
    """The latest runs in the config's experiment, the newest first; scheduled ones are among them."""
    experiment = find_experiment(api, config)
    return _runs(api, experiment, count) if experiment else []


def _runs(api: Api, experiment: str, count: int) -> list[Any]:
    with api.asked("list the runs"):
        found = api.client.list_runs(page_size=count, sort_by="created_at desc", experiment_id=experiment)
    return list(found.runs or [])


def find_experiment(api: Api, config: RunConfig) -> str | None:
    """The id of the config's experiment; None where no run or schedule has created it yet.

    Raises:
        UserError: there are several of its name.
    """
    name = _experiment(config)
    with api.asked(f"look for the experiment {name}"):
        found = api.client.list_experiments(filter=called(name), namespace=api.namespace).experiments or []
    if len(found) > 1:
        raise UserError(
            f"several experiments are called {name}", remedy="set cluster.namespace, or another cluster.experiment"
        )
    return str(found[0].experiment_id) if found else None


def experiment_id(api: Api, config: RunConfig) -> str:
    """The id of the config's experiment, which is created if need be."""
    if found := find_experiment(api, config):
        return found
    name = _experiment(config)
    with api.asked(f"create the experiment {name}"):
        return str(api.client.create_experiment(name, namespace=api.namespace).experiment_id)


def _experiment(config: RunConfig) -> str:
    return config.cluster.experiment or config.name


def upload(api: Api, config: RunConfig, until: Until = "promote") -> Version:
    """Stage what is local, compile, and make sure that Kubeflow Pipelines has this version."""
    check_until(config, until)  # before gigabytes are on their way
    check_cluster(config)
    staged = stage(config, open_store(config.storage, Path()))
    return _keep_version(
        api, config.name, lambda package: compile_pipeline(staged, package, graph_of(PIPELINES[until]))
    )


def _keep_version(api: Api, pipeline: str, compile_to: Callable[[Path], None]) -> Version:
    """Make sure that Kubeflow Pipelines has what gets compiled, as a version of the pipeline of this name."""
    with tempfile.TemporaryDirectory(prefix="loraloom-") as folder:
        package = Path(folder) / "pipeline.yaml"
        compile_to(package)
        name = f"{__version__}-{hashlib.sha256(package.read_bytes()).hexdigest()[:12]}"
        pipeline_id = _pipeline_id(api, pipeline.replace("_", "-").strip("-"))

        def find() -> Any | None:
            with api.asked("list the pipeline's versions"):
                versions = api.client.list_pipeline_versions(pipeline_id, filter=called(name)).pipeline_versions
            return versions[0] if versions else None

        def create() -> Any:
            with api.asked("take the pipeline"):
                return api.client.upload_pipeline_version(str(package), name, pipeline_id=pipeline_id)

        return Version(pipeline_id, once(find, create).pipeline_version_id, name)


def _pipeline_id(api: Api, name: str) -> str:
    """The id of the pipeline of this name, an empty one if there was none: all its versions are named by content."""
    models = api.client.api_models

    def find() -> Any | None:
        with api.asked("list the pipelines"):
            found = api.client.list_pipelines(filter=called(name), namespace=api.namespace).pipelines
        return found[0] if found else None

    def create() -> Any:
        with api.asked(f"create the pipeline {name}"):
            return api.client.pipelines.pipeline_service_create_pipeline(
                models.V2beta1Pipeline(display_name=name, name=name, namespace=api.namespace)
            )

    return str(once(find, create).pipeline_id)
