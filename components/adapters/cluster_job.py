"""Have an adapter trained on several machines: submit a TrainJob to the cluster that this pod runs in, and wait.

The job is found again by its name: a step that was killed hard goes on waiting for the one it left, and an ended one
is replaced. A job that succeeded is removed, its adapter is in the store; one that failed stays for its logs.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient, ApiException, Configuration, CustomObjectsApi
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME, InClusterConfigLoader
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from components.adapters.task import Task, forget_report, raise_reported
from components.adapters.train_job import GROUP, PLURAL, VERSION, train_job
from components.errors import UserError
from components.interrupt import termination_as_interrupt
from components.step import Step

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # the pod's token, certificate, namespace
SECONDS_BETWEEN_LOOKS = 10.0
ANSWER_WITHIN = 30  # seconds
# A request that comes twice does no harm: the second creation meets the first one's name.
RETRIES = Retry(total=6, backoff_factor=1.0, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None)
REMEDIES = {
    403: "let the steps' service account create, get and delete trainjobs (infra/runs/trainjobs.yaml)",
    404: "install Kubeflow Trainer in the cluster, or set resources.train.nodes to 1",
}


def in_cluster() -> bool:
    """Whether this process runs in a pod."""
    return SERVICE_HOST_ENV_NAME in os.environ


def train_on_nodes(step: Step, task: Task) -> None:
    """Run the task as a TrainJob and wait; what it made is in the store afterwards.

    Raises:
        UserError: a training process met an error of the user's, the job failed, or the cluster refuses.
    """
    forget_report(step.store, task)
    manifest = train_job(step.config, task)
    name = manifest["metadata"]["name"]
    with _explained():
        jobs = _TrainJobs(SERVICE_ACCOUNT)
        with _removed_when_stopped(jobs, name):
            jobs.submit(manifest)
            message = jobs.follow(name, lambda status: step.say(f"TrainJob {name}: {status}"))
        if message is None:
            jobs.remove(name)
            return
    raise_reported(step.store, task)
    raise UserError(
        f"TrainJob {name} failed: {message}",
        remedy=f"kubectl logs --namespace {jobs.namespace} -l jobset.sigs.k8s.io/jobset-name={name} shows why. "
        "The same run goes on from the last checkpoint",
    )


class _TrainJobs:
    """The TrainJobs of the namespace that this pod is in."""

    def __init__(self, account: Path) -> None:
        settings = Configuration()
        InClusterConfigLoader(token_filename=account / "token", cert_filename=account / "ca.crt").load_and_set(settings)
        settings.retries = RETRIES
        self.namespace = (account / "namespace").read_text().strip()
        self._api = CustomObjectsApi(ApiClient(settings))
        self._where = {"group": GROUP, "version": VERSION, "namespace": self.namespace, "plural": PLURAL}

    def submit(self, manifest: Mapping[str, Any]) -> None:
        """Create the job; one of its name that still runs is taken for it, any other makes way."""
        name = manifest["metadata"]["name"]
        while True:
            try:
                self._api.create_namespaced_custom_object(**self._where, body=manifest, _request_timeout=ANSWER_WITHIN)
                return
            except ApiException as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
            there = self.get(name)
            if there is not None:
                if _end(there) is None and "deletionTimestamp" not in there["metadata"]:
                    return
                self.remove(name)
                time.sleep(SECONDS_BETWEEN_LOOKS)

    def follow(self, name: str, tell: Callable[[str], None]) -> str | None:
        """Wait for the job's end and tell what changes; the message it failed with, or None where it succeeded."""
        told = ""
        while True:
            job = self.get(name)
            if job is None:
                raise UserError(f"TrainJob {name} is gone: somebody removed it", remedy="start the run again")
            status = _status(job)
            if status != told:
                tell(status)
                told = status
            if (end := _end(job)) is not None:
                return None if end["type"] == "Complete" else end.get("message") or end.get("reason", "")
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def get(self, name: str) -> dict[str, Any] | None:
        """The job as the cluster has it, or None."""
        try:
            job: dict[str, Any] = self._api.get_namespaced_custom_object(
                **self._where, name=name, _request_timeout=ANSWER_WITHIN
            )
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return job

    def remove(self, name: str) -> None:
        """Have the job and its pods removed, if it is there."""
        try:
            self._api.delete_namespaced_custom_object(
                **self._where, name=name, propagation_policy="Foreground", _request_timeout=ANSWER_WITHIN
            )
        except ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise


def _end(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """The condition that ended a job, or None while it goes on."""
    conditions: list[dict[str, Any]] = job.get("status", {}).get("conditions", [])
    ends = [each for each in conditions if each["type"] in ("Complete", "Failed") and each["status"] == "True"]
    return ends[0] if ends else None


def _status(job: Mapping[str, Any]) -> str:
    """How far a job is, in a line."""
    end = _end(job)
    if end is not None:
        return "succeeded" if end["type"] == "Complete" else "failed"
    parts = job.get("status", {}).get("jobsStatus", [])
    counts = [f"{part[what]} {what}" for part in parts for what in ("active", "ready", "failed") if part.get(what)]
    return ", ".join(counts) or "waiting"


@contextmanager
def _removed_when_stopped(jobs: _TrainJobs, name: str) -> Iterator[None]:
    """Remove the job where this process is told to stop: a run that was ended must not go on costing machines."""
    with termination_as_interrupt():
        try:
            yield
        except KeyboardInterrupt:
            jobs.remove(name)
            raise


@contextmanager
def _explained() -> Iterator[None]:
    """Tell the user what the cluster's refusal or silence means."""
    try:
        yield
    except ApiException as error:
        body = error.body or ""
        said = json.loads(body).get("message", body) if body.startswith("{") else body
        raise UserError(
            f"the cluster refuses the TrainJob ({error.status} {error.reason}): {said}",
            remedy=REMEDIES.get(error.status, ""),
        ) from error
    except HTTPError as error:
        raise UserError(f"the cluster's API does not answer: {error}", remedy="start the run again") from error
