"""The manifest of a TrainJob, against the models of Kubeflow Trainer's own API package."""

import json
from typing import Any

import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from components import __version__
from components.adapters.task import Task
from components.adapters.train_job import train_job
from components.cluster_config import StepResources
from components.config import RunConfig
from components.image import WORKER
from pipelines.pods import equip

SETTINGS: dict[str, Any] = {
    "name": "desk",
    "model": {"id": "org/model"},
    "datasets": [{"name": "mood", "path": "s3://bucket/mood"}],
    "images": {"registry": "registry.example.org/team", "pull_secrets": ["registry"]},
    "cluster": {
        "service_account": "loraloom-pipeline",
        "secrets": {"s3": {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}, "hub": {"HF_TOKEN": "token"}},
        "labels": {"team": "support"},
    },
    "resources": {
        "train": {
            "nodes": 2,
            "gpus": 4,
            "cpu": "16",
            "memory": "96Gi",
            "shm": "8Gi",
            "timeout": 7200,
            "node_selector": {"gpu": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        }
    },
}
TASK = Task(
    "{}", "3f0c/ab", "group-0", ["mood"], {"mood": "dataset/1"}, "start/1", 0, "0123456789abcdef0123456789abcdef"
)


def manifest(**train: Any) -> dict[str, Any]:
    settings = SETTINGS | {"resources": {"train": SETTINGS["resources"]["train"] | train}}
    return train_job(RunConfig.model_validate(settings), TASK)


@pytest.mark.parametrize(
    "asked", [{}, {"shm": None, "timeout": None, "node_selector": {}, "tolerations": [], "gpus": 0}]
)
def test_kubeflow_trainer_knows_every_field(asked: dict[str, Any]) -> None:
    """Its models drop what they don't know: nothing may be missing when they write it out again."""
    written = manifest(**asked)
    read = TrainerV1alpha1TrainJob.from_dict(written)
    assert read is not None
    assert json.loads(json.dumps(read.to_dict())) == written


def test_the_trainer_is_what_the_config_asks_for() -> None:
    job = manifest()
    assert job["metadata"]["name"] == "loraloom-0123456789abcdef0123"
    assert job["spec"]["runtimeRef"]["name"] == "torch-distributed"
    assert job["spec"]["activeDeadlineSeconds"] == 7200
    trainer = job["spec"]["trainer"]
    assert trainer["image"] == f"registry.example.org/team/loraloom/worker:{__version__}"
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    amounts = {"cpu": "16", "memory": "96Gi", "nvidia.com/gpu": "4"}
    assert trainer["resourcesPerNode"] == {"requests": amounts, "limits": amounts}
    assert Task.parse(trainer["args"][-1]) == TASK


def test_secrets_stand_by_reference_only() -> None:
    environment = {entry["name"]: entry for entry in manifest()["spec"]["trainer"]["env"]}
    assert environment["AWS_SECRET_ACCESS_KEY"] == {
        "name": "AWS_SECRET_ACCESS_KEY",
        "valueFrom": {"secretKeyRef": {"name": "s3", "key": "key"}},
    }
    assert {name for name, entry in environment.items() if "value" in entry} == {"HOME", "HF_HOME"}


def test_its_pods_are_like_the_steps_own() -> None:
    job = manifest()
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = replicated["template"]["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    assert replicated["name"] == pod["containers"][0]["name"] == "node"
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["serviceAccountName"] == "loraloom-pipeline"
    assert pod["securityContext"]["runAsNonRoot"] is True
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {"scratch": "/tmp", "shm": "/dev/shm"}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounted)
    assert labels["team"] == "support"
    assert labels["app.kubernetes.io/component"] == "train"
    assert job["metadata"]["labels"]["loraloom/run"] == "3f0c-ab"


def test_without_gpus_a_machine_has_one_process() -> None:
    trainer = manifest(gpus=0)["spec"]["trainer"]
    assert trainer["numProcPerNode"] == 1
    assert "nvidia.com/gpu" not in trainer["resourcesPerNode"]["limits"]


def test_the_step_itself_takes_one_gpu() -> None:
    """It waits, and computes logits afterwards."""
    for nodes, expected in ((1, "8"), (2, "1")):
        container: dict[str, Any] = {"image": WORKER}
        equip(container, RunConfig.model_validate(SETTINGS), StepResources(gpus=8, nodes=nodes))
        assert container["resources"]["accelerator"]["resourceCount"] == expected


@pytest.mark.parametrize("asked", [{"nodes": 2}, {"sharding": "fsdp"}])
def test_other_steps_have_no_processes_to_share_work(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="only train runs in several processes"):
        RunConfig.model_validate(SETTINGS | {"resources": {"boost": asked}})


def test_an_authority_of_ones_own_is_mounted_and_named() -> None:
    cluster = SETTINGS["cluster"] | {"ca_config_map": "authorities"}
    job = train_job(RunConfig.model_validate(SETTINGS | {"cluster": cluster}), TASK)
    assert TrainerV1alpha1TrainJob.from_dict(job).to_dict() == job
    assert {"name": "AWS_CA_BUNDLE", "value": "/etc/loraloom/certificates/ca.crt"} in job["spec"]["trainer"]["env"]
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    assert {"name": "certificates", "configMap": {"name": "authorities"}} in pod["volumes"]
    mounted = {"name": "certificates", "mountPath": "/etc/loraloom/certificates"}
    assert mounted in pod["containers"][0]["volumeMounts"]
