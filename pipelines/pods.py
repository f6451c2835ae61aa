"""What the config asks of the pods of each step, in the words of the pipeline's specification.

A pod's container (image, amounts, GPUs, environment) stands in the specification itself; the rest (nodes, volumes,
secrets, labels, deadlines) is Kubernetes' and stands in a second YAML document, written here with the messages of
kfp-kubernetes. It is the document that kfp-kubernetes' own functions lead to; those act on the tasks of a graph while
it is built, and ours is built once, without a config.

What cannot be said here, KFP's launcher does for every pod: all capabilities dropped, no privilege escalation, the
runtime's seccomp profile.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes

from components.cluster_config import StepResources
from components.config import RunConfig
from components.pod import CERTIFICATES, SCRATCH, USER, environment, image, labels

LONGEST_BACKOFF = 3600  # seconds
BACKOFF_FACTOR = 2


def equip(container: dict[str, Any], config: RunConfig, asked: StepResources) -> None:
    """Give a step's container its image, what it asks of the node, and a place to write to."""
    container["image"] = image(config.images, container["image"])
    container["env"] = [{"name": name, "value": value} for name, value in environment(config).items()]
    if resources := dict(_amounts(asked)):
        container["resources"] = resources


def _amounts(asked: StepResources) -> Iterator[tuple[str, Any]]:
    """Requests equal limits: what a step was promised is there, and nothing beyond it is taken from others."""
    if asked.cpu is not None:
        yield "resourceCpuRequest", asked.cpu
        yield "resourceCpuLimit", asked.cpu
    if asked.memory is not None:
        yield "resourceMemoryRequest", asked.memory
        yield "resourceMemoryLimit", asked.memory
    if asked.gpus:
        here = 1 if asked.nodes > 1 else asked.gpus  # others train: the step itself computes logits afterwards
        yield "accelerator", {"resourceType": asked.gpu_type, "resourceCount": str(here)}


def retry_policy(asked: StepResources) -> dict[str, Any]:
    """How often, and after which pauses, a failed step is tried again; empty for not at all."""
    if not asked.retries:
        return {}
    return {
        "maxRetryCount": asked.retries,
        "backoffDuration": f"{asked.backoff}s",
        "backoffFactor": float(BACKOFF_FACTOR),
        "backoffMaxDuration": f"{LONGEST_BACKOFF}s",
    }


def pod(step: str, config: RunConfig, asked: StepResources) -> dict[str, Any]:
    """The second document's part for the pods of ``step``."""
    message = kubernetes.KubernetesExecutorConfig(
        secret_as_env=[_secret(name, keys) for name, keys in config.cluster.secrets.items()],
        pod_metadata=kubernetes.PodMetadata(labels=labels(step, config)),
        image_pull_policy=config.images.pull_policy,
        image_pull_secret=[
            kubernetes.ImagePullSecret(secret_name=name, secret_name_parameter=_constant(name))
            for name in config.images.pull_secrets
        ],
        tolerations=[kubernetes.Toleration(**entry.model_dump(exclude_none=True)) for entry in asked.tolerations],
        empty_dir_mounts=[kubernetes.EmptyDirMount(volume_name="scratch", mount_path=SCRATCH)],
        security_context=kubernetes.SecurityContext(run_as_user=USER, run_as_group=USER, run_as_non_root=True),
    )
    if asked.shm is not None:
        shm = kubernetes.EmptyDirMount(
            volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=asked.shm  # noqa: S108
        )  # fmt: skip
        message.empty_dir_mounts.append(shm)
    if config.cluster.ca_config_map is not None:
        name = config.cluster.ca_config_map
        message.config_map_as_volume.append(
            kubernetes.ConfigMapAsVolume(
                config_map_name=name, config_map_name_parameter=_constant(name), mount_path=CERTIFICATES, optional=False
            )
        )
    if asked.node_selector:
        message.node_selector.labels.update(asked.node_selector)
    if asked.timeout is not None:
        message.active_deadline_seconds = asked.timeout
    return MessageToDict(message)


def _secret(name: str, keys: dict[str, str]) -> kubernetes.SecretAsEnv:
    """Variables from a secret. Its name stands twice: KFP before 2.5 reads the plain one only."""
    pairs = [
        kubernetes.SecretAsEnv.SecretKeyToEnvMap(secret_key=key, env_var=variable) for variable, key in keys.items()
    ]
    return kubernetes.SecretAsEnv(
        secret_name=name, secret_name_parameter=_constant(name), key_to_env=pairs, optional=False
    )


def _constant(text: str) -> dict[str, Any]:
    return {"runtime_value": {"constant": {"string_value": text}}}
