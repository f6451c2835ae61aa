"""The settings that matter on a cluster: images, what each step asks of its pod, Kubeflow Pipelines, the schedule."""

from typing import Literal

from pydantic import Field

from components.section import EnvironmentVariable, Positive, Section


class ImagesConfig(Section):
    """Container images of the steps: ``<registry>/loraloom/worker:<tag>`` and ``.../cpu:<tag>``."""

    registry: str | None = None
    tag: str | None = Field(None, description="Default: loraloom's version.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: list[str] = Field([], description="Names of Kubernetes secrets for a private registry.")


class Toleration(Section):
    """A taint that a step's pod may live with, as Kubernetes writes it."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class StepResources(Section):
    """What one step asks of a cluster, in Kubernetes' notation; cpu and memory are request and limit alike."""

    cpu: str | None = None
    memory: str | None = None
    gpus: int = Field(0, ge=0)
    gpu_type: str = Field("nvidia.com/gpu", description="The resource that the cluster offers GPUs as.")
    node_selector: dict[str, str] = Field({})
    tolerations: list[Toleration] = Field([])
    shm: str | None = Field(None, description="Size of /dev/shm, which counts as memory; null: the cluster's 64 MB.")
    timeout: Positive | None = Field(None, description="Seconds an attempt may take, waiting for a node included.")
    retries: int = Field(0, ge=0, le=20, description="Attempts after the first; each goes on from what is stored.")
    backoff: Positive = Field(60, description="Seconds before the first retry; doubles each time, up to an hour.")
    nodes: Positive = Field(1, description="Machines that train one adapter together, each with `gpus`; `train` only.")
    sharding: Literal["ddp", "fsdp"] = Field(
        "ddp", description="ddp: each GPU holds the whole base; fsdp: a share of its layers. `train` only."
    )


class ClusterConfig(Section):
    """Kubeflow Pipelines, and what all pods have in common."""

    endpoint: str | None = Field(None, description="Address of the API. Default: KF_PIPELINES_ENDPOINT.")
    namespace: str | None = Field(None, description="Where runs live on an installation for several users.")
    experiment: str | None = Field(None, description="Default: the run's name.")
    service_account: str | None = Field(None, description="Default: that of Kubeflow Pipelines.")
    ca_bundle: str | None = Field(None, description="Certificates to check the endpoint with.")
    ca_config_map: str | None = Field(
        None, description="ConfigMap whose ca.crt the steps trust, instead of the usual authorities: bucket and MLflow."
    )
    secrets: dict[str, dict[EnvironmentVariable, str]] = Field(
        {}, description="Kubernetes secret -> environment variable of the steps -> key in the secret."
    )
    labels: dict[str, str] = Field({}, description="Labels of the pods, beside loraloom's own.")


class ScheduleConfig(Section):
    """When the cluster retrains by itself."""

    cron: str = Field(description="Five fields, or six with seconds first; UTC unless the cluster is set otherwise.")


Step = Literal[
    "open_run", "prepare", "changes", "warm_start", "extract", "estimate", "partition",
    "train", "boost", "weigh", "servable", "evaluate", "register", "promote", "close_run",
    "pin_version", "score", "gather",
]  # fmt: skip
