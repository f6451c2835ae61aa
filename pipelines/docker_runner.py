"""Runs every step in a container of its own, with the engine on this machine and kfp's DockerRunner.

kfp mounts nothing but its own folder, passes on no environment, and may take a failed container for a success. So data
and model are staged, what a step writes is mounted, its environment is chosen here, and :func:`run_container` is ours.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import events, pod
from components.cluster_config import ImagesConfig
from components.config import RunConfig
from components.errors import UserError
from components.object_store import LocalStore, open_store
from pipelines.local import GPUS
from pipelines.staging import stage

if TYPE_CHECKING:
    import docker
    from kfp import local

LABEL = "loraloom.root"  # on every container: the root folder of its run
SQLITE = "sqlite:///"
PASSED = ("AWS_", "MLFLOW_", "OMP_", "GOMP_", "MKL_")  # how variables begin that steps may see
PASSED_TOO = (
    *("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", events.VARIABLE),
    *("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
# Variables that name a file on this machine, or a folder of them: it is mounted where it is.
FILES = (
    *("AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
)
GOING = (404, 409)  # the engine's words for a container that is gone, or going


@contextmanager
def containers(config: RunConfig, root: Path, images: set[str]) -> Iterator[RunConfig]:
    """Make ready for a run in containers; yields the config as they see it, and leaves none of them behind.

    Args:
        config: with storage and tracking resolved.
        root: the run's folder, locked by the caller.
        images: what the pipeline's components name.

    Raises:
        UserError: no engine answers, an image is missing, or data or model cannot be staged.
    """
    client = _engine()
    try:
        _require(client, sorted(pod.image(config.images, name) for name in images))
        _remove_containers(client, root)  # a killed command could not
        _temporary(root).mkdir(parents=True, exist_ok=True)
        yield stage(config, open_store(config.storage, root / "store"))
    finally:
        _remove_containers(client, root)
        shutil.rmtree(_temporary(root), ignore_errors=True)
        client.close()


def runner(config: RunConfig, root: Path) -> "local.DockerRunner":
    """kfp's runner with our way to run a container; for the process that runs the pipeline."""
    import docker
    from kfp import local
    from kfp.local import docker_task_handler

    docker_task_handler.run_docker_container = partial(run_container, config.images, _environment(config, root))
    bind = partial(docker.types.Mount, type="bind")
    mounts = [bind(str(folder), str(folder)) for folder in _written(config, root)]
    mounts += [bind(str(file), str(file), read_only=True) for file in _read(config)]
    return local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}",
        labels={LABEL: str(root)},
        mounts=mounts,
        network_mode="host",  # an MLflow or S3 server on this machine has the same address inside
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108 - the container's own
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        init=True,
        device_requests=[docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if GPUS.is_dir() else None,
    )


def run_container(
    images: ImagesConfig,
    ours: Mapping[str, str],
    client: "docker.DockerClient",
    image: str,
    command: list[str],
    volumes: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    **how: Any,
) -> int:
    """Run a container to its end, copying what it prints; returns its exit status.

    kfp's own function lets the engine remove the container when it ends, asks for the status after that, and takes
    "no such container" for success: of 60 failures on the host's network, 10 went unseen. Here the container stays
    until its status is known.

    Args:
        ours: the environment of every step; ``environment``, the task's own, wins.
    """
    given = {**ours, **(environment or {})}
    container = client.containers.run(
        pod.image(images, image), command, detach=True, volumes=volumes, environment=given, **how
    )
    try:
        for chunk in container.logs(stream=True, follow=True):
            print(chunk.decode(errors="replace"), end="", flush=True)
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def _engine() -> "docker.DockerClient":
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise UserError(
            f"no Docker engine answers: {error}",
            remedy="start it, see that this user may use it (group docker, DOCKER_HOST), or leave out --runner docker",
        ) from error
    return client


def _require(client: "docker.DockerClient", images: list[str]) -> None:
    """See that all images are here, or bring them."""
    import docker

    missing = []
    for image in images:
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            try:
                client.images.pull(image)
            except docker.errors.APIError as error:
                missing.append(f"{image}: {error.explanation or error}")
    if missing:
        raise UserError(
            "images are missing",
            problems=tuple(missing),
            remedy="`make images` builds them; images.registry and images.tag name others",
        )


def _remove_containers(client: "docker.DockerClient", root: Path) -> None:
    import docker

    for container in client.containers.list(all=True, filters={"label": f"{LABEL}={root}"}, ignore_removed=True):
        try:
            container.remove(force=True)
        except docker.errors.APIError as error:
            if error.status_code not in GOING:
                raise


def _environment(config: RunConfig, root: Path) -> dict[str, str]:
    """What a step's environment holds beside the image's own; credentials travel here and nowhere else."""
    wanted = {*PASSED_TOO, config.alerts.webhook_env}
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED) or name in wanted}
    return passed | {
        # One temporary folder for all steps of a run: a model from a bucket is fetched once. The hub's cache stays.
        "TMPDIR": str(_temporary(root)),
        "HF_HOME": str(root / "huggingface"),
        "USER": os.environ.get(
            "USER", str(os.getuid())
        ),  # the image knows no name for our uid, and MLflow asks for one
    }


def _temporary(root: Path) -> Path:
    return root / "tmp"


def _written(config: RunConfig, root: Path) -> list[Path]:
    """Folders that steps write to: the run's, and those of a store or an embedded MLflow elsewhere."""
    folders = [root]
    store = open_store(config.storage, root / "store")
    if isinstance(store, LocalStore):
        folders.append(store.root)
    if (uri := str(config.tracking.uri)).startswith(SQLITE):
        database = Path(uri.removeprefix(SQLITE))
        database.parent.mkdir(parents=True, exist_ok=True)
        folders.append(database.parent)
    return [root] + [folder for folder in folders if not folder.is_relative_to(root)]


def _read(config: RunConfig) -> list[Path]:
    """Files and folders on this machine that settings or variables name."""
    named = [config.storage.ca_bundle, *(os.environ.get(name) for name in FILES)]
    return sorted({Path(name).absolute() for name in named if name and Path(name).exists()})
