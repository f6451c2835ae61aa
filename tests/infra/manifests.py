"""Rendered manifests, and the ways the tests look at them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod that a manifest asks for: who asks, the labels it carries, its specification, and what quota counts."""

    owner: str
    namespace: str
    labels: dict[str, str]
    spec: dict[str, Any]
    replicas: int

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All containers, those that run before the others included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def named(manifest: Manifest) -> str:
    """Kind and name."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """The manifests of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """Every pod that would run. A served model's carries the label by which KServe names its pods."""
    for manifest in manifests:
        spec, namespace = manifest.get("spec", {}), manifest["metadata"].get("namespace", "")
        if manifest["kind"] == "InferenceService":
            labels = {"serving.kserve.io/inferenceservice": manifest["metadata"]["name"]}
            yield Pod(named(manifest), namespace, labels, spec["predictor"], spec["predictor"]["maxReplicas"])
            continue
        if manifest["kind"] == "CronJob":
            template = spec["jobTemplate"]["spec"]["template"]
        elif manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = spec["template"]
        else:
            continue
        yield Pod(named(manifest), namespace, template["metadata"]["labels"], template["spec"], spec.get("replicas", 1))


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector matches ``labels``; an empty one matches all."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", f"{expression['operator']}: not needed so far"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def secrets_of(pod: Pod) -> Iterator[tuple[str, str | None]]:
    """The secrets a pod refers to, each with the key it asks for (None: all of them)."""
    for container in pod.containers:
        for source in container.get("envFrom", []):
            if "secretRef" in source:
                yield source["secretRef"]["name"], None
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield reference["name"], reference["key"]
    for volume in pod.spec.get("volumes", []):
        if "secret" in volume:
            yield volume["secret"]["secretName"], None
