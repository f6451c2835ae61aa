"""What the pods of the steps and those of a TrainJob have in common."""

import re

from components.cluster_config import ImagesConfig
from components.config import RunConfig

USER = 1000  # as the images have it
SCRATCH = "/tmp"  # noqa: S108  the one folder a step writes to; a volume, so that the root file system may be read-only
CERTIFICATES = "/etc/loraloom/certificates"  # where the ConfigMap with certificate authorities is mounted


def environment(config: RunConfig) -> dict[str, str]:
    """The variables of every step that are no secrets."""
    settings = {"HOME": SCRATCH, "HF_HOME": f"{SCRATCH}/huggingface"}
    if config.cluster.ca_config_map is not None:
        trusted = f"{CERTIFICATES}/ca.crt"
        settings["AWS_CA_BUNDLE"] = trusted
        if (config.tracking.uri or "").startswith("https:"):
            settings["MLFLOW_TRACKING_SERVER_CERT_PATH"] = trusted
    return settings


def image(images: ImagesConfig, name: str) -> str:
    """``name`` (repository:version) as the config's registry and tag have it."""
    repository, _, version = name.partition(":")
    return f"{f'{images.registry}/' if images.registry else ''}{repository}:{images.tag or version}"


def labels(step: str, config: RunConfig) -> dict[str, str]:
    """Labels of the pods of ``step``; ours last: network policies and quotas select by them."""
    return {
        **config.cluster.labels,
        "app.kubernetes.io/name": "loraloom",
        "app.kubernetes.io/part-of": "loraloom",
        "app.kubernetes.io/component": step.replace("_", "-"),
        "app.kubernetes.io/instance": label(config.name),
    }


def label(text: str) -> str:
    """A label's value: at most 63 letters, digits, dots, dashes, underscores; a letter or digit at both ends."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63].strip("-_.")
