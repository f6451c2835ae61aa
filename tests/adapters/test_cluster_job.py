"""A TrainJob from its submission to its end, against a Kubernetes API that answers as the real one does."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from urllib3 import Retry

from components.adapters import cluster_job
from components.adapters.cluster_job import train_on_nodes
from components.adapters.task import delivered, reported
from components.adapters.train import run
from components.adapters.train_job import train_job
from components.artifacts import load
from components.config import ModelConfig
from components.errors import UserError
from components.registry.open_run import run as open_run
from components.step import read_records, read_references, write_references
from tests.adapter_task import NAMES, AdapterTask, weights_of
from tests.kubernetes_stub import COLLECTION, Job, KubernetesStub, condition
from tests.tiny_ensemble import write_base
from tests.tiny_training import assert_same

Start = Callable[..., KubernetesStub]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def work(model: ModelConfig, tmp_path: Path) -> AdapterTask:
    return AdapterTask(model, tmp_path, nodes=2)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a cluster whose controller gives these statuses, one a look, or calls this function."""
    running: list[KubernetesStub] = []

    def started(*statuses: Job, controller: Callable[[Job], Job] | None = None) -> KubernetesStub:
        script = iter(statuses)
        stub = KubernetesStub(tmp_path / "cluster", controller or (lambda job: next(script)))
        running.append(stub)
        for name, value in stub.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(cluster_job, "SERVICE_ACCOUNT", stub.account)
        monkeypatch.setattr(cluster_job, "SECONDS_BETWEEN_LOOKS", 0.05)
        return stub

    yield started
    for stub in running:
        stub.stop()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def active(count: int = 2) -> Job:
    """The status of a job whose machines are at work."""
    part = {"name": "node", "active": count, "ready": count, "succeeded": 0, "failed": 0, "suspended": 0}
    return {"jobsStatus": [part]}


def name_of(work: AdapterTask) -> str:
    name: str = train_job(work.config, work.task)["metadata"]["name"]
    return name


class Machines:
    """Runs the pods of a TrainJob as Kubeflow Trainer would: one torchrun a machine, told of the others by PET_."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pods: list[subprocess.Popen[bytes]] = []

    def __call__(self, job: Job) -> Job:
        if not self.pods:
            self.pods = [self._pod(job["spec"]["trainer"], rank) for rank in range(job["spec"]["trainer"]["numNodes"])]
        codes = [pod.poll() for pod in self.pods]
        if None in codes:
            return active(codes.count(None))
        return condition("Complete") if not any(codes) else condition("Failed", f"exit codes {codes}")

    def _pod(self, trainer: dict[str, Any], rank: int) -> subprocess.Popen[bytes]:
        told = {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(self.port),
        }
        told["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # "python" is the image's
        return subprocess.Popen([*trainer["command"], *trainer["args"]], env=os.environ | told)


def test_the_step_publishes_what_two_machines_have_trained(work: AdapterTask, start: Start, free_port: int) -> None:
    cluster = start(controller=Machines(free_port))
    write_references(work.folder / "start", {"start": work.theta.key})
    job = json.dumps({"name": "group-0", "datasets": NAMES})
    config = work.config.model_dump_json()
    out = work.folder / "adapter"
    run(config, "run", open_run(config, "run"), work.folder / "datasets", work.folder / "start", job, out)

    trained = load(work.store, read_references(out)["adapter/group-0"])
    expected, facts = work.alone()
    assert_same(weights_of(trained.folder), expected, atol=1e-5)
    assert trained.facts["flops"] == facts["flops"]
    (record,) = [record for record in read_records(work.store, "run") if record["step"] == "train"]
    assert record["artifacts"]["adapter/group-0"]["fresh"] is True
    assert record["flops"] == facts["flops"]
    assert list(work.store.keys("checkpoints/")) == list(work.store.keys("trained/")) == []
    name = name_of(work)
    assert cluster.requests[0] == ("POST", COLLECTION)
    assert cluster.requests[-1] == ("DELETE", f"{COLLECTION}/{name}?propagationPolicy=Foreground")
    assert cluster.jobs == {}


def test_status_is_told_when_it_changes(work: AdapterTask, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start({}, {}, active(), active(), active(), condition("Complete"))
    train_on_nodes(work.step, work.task)
    said = [line.split(": ", 2)[2] for line in capsys.readouterr().out.splitlines() if "TrainJob" in line]
    assert said == ["waiting", "2 active, 2 ready", "succeeded"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [("jobset failed: node-1 ran out of memory", "JobsFailed"), ("", "DeadlineExceeded")],
    ids=["failed", "out of time"],
)
def test_a_failed_job_fails_the_step_with_its_own_words(
    work: AdapterTask, start: Start, message: str, reason: str
) -> None:
    cluster = start(active(), condition("Failed", message, reason))
    with pytest.raises(UserError, match=f"(?s)TrainJob {name_of(work)} failed: {message or reason}\n-> kubectl logs"):
        train_on_nodes(work.step, work.task)
    assert list(cluster.jobs) == [name_of(work)]  # stays for its logs
    assert not delivered(work.store, work.task)


def test_what_a_training_process_reports_comes_first(work: AdapterTask, start: Start) -> None:
    def diverge(job: Job) -> Job:
        with pytest.raises(UserError), reported(work.store, work.task):
            raise UserError("training diverged", remedy="lower it", problems=("a", "b"))
        return condition("Failed", "exit code 1")

    start(controller=diverge)
    with pytest.raises(UserError) as caught:
        train_on_nodes(work.step, work.task)
    assert (caught.value.what, caught.value.remedy, caught.value.problems) == (
        "training diverged",
        "lower it",
        ("a", "b"),
    )
    assert list(work.store.keys("trained/")) == []


def test_a_job_that_still_runs_is_waited_for(work: AdapterTask, start: Start) -> None:
    """The step's pod was killed hard, and started again."""
    cluster = start(active(), active(), condition("Complete"))
    left = train_job(work.config, work.task)
    cluster.jobs[name_of(work)] = left
    train_on_nodes(work.step, work.task)
    assert [method for method, _ in cluster.requests] == ["POST", "GET", "GET", "GET", "DELETE"]


def test_a_job_that_has_ended_makes_way(work: AdapterTask, start: Start) -> None:
    cluster = start(condition("Failed", "yesterday"), active(), condition("Complete"))
    cluster.jobs[name_of(work)] = train_job(work.config, work.task)
    train_on_nodes(work.step, work.task)
    assert [method for method, _ in cluster.requests] == ["POST", "GET", "DELETE", "POST", "GET", "GET", "DELETE"]


def test_a_job_that_somebody_removes_is_not_waited_for(work: AdapterTask, start: Start) -> None:
    cluster = start(controller=lambda job: cluster.jobs.pop(job["metadata"]["name"]) and active())
    with pytest.raises(UserError, match="is gone"):
        train_on_nodes(work.step, work.task)


def test_hiccups_of_the_cluster_are_got_over(work: AdapterTask, start: Start) -> None:
    cluster = start(active(), condition("Complete"))
    cluster.faults = [503, 0]
    train_on_nodes(work.step, work.task)
    assert [method for method, _ in cluster.requests] == ["POST", "GET", "GET", "DELETE"]


@pytest.mark.parametrize(("status", "remedy"), [(403, "infra/runs/trainjobs.yaml"), (404, "install Kubeflow Trainer")])
def test_a_refusal_says_what_to_do(work: AdapterTask, start: Start, status: int, remedy: str) -> None:
    start().faults = [status]
    with pytest.raises(UserError, match=f"(?s)refuses the TrainJob \\({status} .*not now.*{remedy}"):
        train_on_nodes(work.step, work.task)


def test_silence_ends_in_an_error(work: AdapterTask, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start().faults = [0] * 9
    monkeypatch.setattr(cluster_job, "RETRIES", Retry(total=2, allowed_methods=None))
    with pytest.raises(UserError, match="does not answer"):
        train_on_nodes(work.step, work.task)


def test_a_step_that_is_stopped_takes_its_job_along(work: AdapterTask, start: Start) -> None:
    def stop(job: Job) -> Job:
        os.kill(os.getpid(), signal.SIGTERM)  # as Kubernetes ends a pod
        return active()

    before = signal.getsignal(signal.SIGTERM)
    cluster = start(controller=stop)
    with pytest.raises(KeyboardInterrupt):
        train_on_nodes(work.step, work.task)
    assert cluster.jobs == {}
    assert signal.getsignal(signal.SIGTERM) == before
