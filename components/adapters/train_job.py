"""The manifest of a Kubeflow ``TrainJob`` that trains one adapter on several machines.

For Kubeflow Trainer 2.3 and its runtime ``torch-distributed``, which tells torchrun of the machines by ``PET_``
variables. What the step's own pods get from the config (nodes, secrets, labels, /dev/shm) these pods get too, in
the shape that the Pod Security Standard `restricted` asks for.
"""

from typing import Any

from components.adapters.task import Task
from components.cluster_config import StepResources
from components.config import RunConfig
from components.image import WORKER
from components.pod import CERTIFICATES, SCRATCH, USER, environment, image, label, labels

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUNTIME = "torch-distributed"
NODE = "node"  # as the runtime calls its pods' job and their container


def train_job(config: RunConfig, task: Task) -> dict[str, Any]:
    """The manifest; its name is made of the task's digest, so that the same adapter is never trained twice at once."""
    asked = config.resources["train"]
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": RUNTIME},
        "trainer": {
            "image": image(config.images, WORKER),
            "command": ["python", "-m", "torch.distributed.run"],
            "args": ["--module", "components.adapters.worker", task.dump()],
            "env": _environment(config),
            "numNodes": asked.nodes,
            "numProcPerNode": max(1, asked.gpus),
            "resourcesPerNode": _amounts(asked),
        },
        "runtimePatches": [{"manager": "loraloom.io/train", "trainingRuntimeSpec": _patch(config, asked)}],
    }
    if asked.timeout is not None:
        spec["activeDeadlineSeconds"] = asked.timeout
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": f"loraloom-{task.job[:20]}",
            "labels": {
                **labels("train", config),
                "loraloom/run": label(task.run_name),
                "loraloom/adapter": label(task.name),
            },
        },
        "spec": spec,
    }


def _environment(config: RunConfig) -> list[dict[str, Any]]:
    """Secrets by reference only."""
    plain: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in environment(config).items()]
    return plain + [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for secret, keys in config.cluster.secrets.items()
        for variable, key in keys.items()
    ]


def _amounts(asked: StepResources) -> dict[str, dict[str, str]]:
    """What each machine gives: requests equal limits, as for the steps."""
    amounts = {"cpu": asked.cpu, "memory": asked.memory, asked.gpu_type: str(asked.gpus) if asked.gpus else None}
    given = {name: amount for name, amount in amounts.items() if amount is not None}
    return {"requests": given, "limits": dict(given)}


def _patch(config: RunConfig, asked: StepResources) -> dict[str, Any]:
    """What the runtime's pods are to be like."""
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}]
    mounts = [{"name": "scratch", "mountPath": SCRATCH}]
    if asked.shm is not None:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": asked.shm}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    if config.cluster.ca_config_map is not None:
        volumes.append({"name": "certificates", "configMap": {"name": config.cluster.ca_config_map}})
        mounts.append({"name": "certificates", "mountPath": CERTIFICATES})
    profile = {"type": "RuntimeDefault"}
    pod: dict[str, Any] = {
        "containers": [
            {
                "name": NODE,
                "volumeMounts": mounts,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": volumes,
        "nodeSelector": asked.node_selector,
        "tolerations": [taint.model_dump(exclude_none=True) for taint in asked.tolerations],
        "imagePullSecrets": [{"name": name} for name in config.images.pull_secrets],
        "securityContext": {"runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": True, "seccompProfile": profile},
    }
    if config.cluster.service_account is not None:
        pod["serviceAccountName"] = config.cluster.service_account
    template = {
        "metadata": {"labels": labels("train", config)},
        "spec": {key: part for key, part in pod.items() if part},
    }
    return {"template": {"spec": {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": template}}}]}}}
