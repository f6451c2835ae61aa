"""Custom resources against what their own projects publish; what is a pod in them, against Kubernetes' schema."""

import importlib
import re
import sys
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from tests.infra.manifests import Manifest, of_kind
from tests.infra.tools import kubernetes_schemas, package

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "dict(str, str)": dict}

# external-secrets.io/v1: the fields in use here, as its documentation has them. No package carries the whole schema.
REMOTE = {"type": "object", "required": ["key"], "additionalProperties": False}
REMOTE["properties"] = {name: {"type": "string"} for name in ("key", "property", "version")}
DATA = {"type": "object", "required": ["secretKey", "remoteRef"], "additionalProperties": False}
DATA["properties"] = {"secretKey": {"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"}, "remoteRef": REMOTE}
EXTERNAL_SECRET = {
    "type": "object",
    "required": ["secretStoreRef", "target", "data"],
    "additionalProperties": False,
    "properties": {
        "refreshInterval": {"type": "string", "pattern": "^[0-9]+(s|m|h)$"},
        "secretStoreRef": {
            "type": "object",
            "required": ["name", "kind"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string"}, "kind": {"enum": ["SecretStore", "ClusterSecretStore"]}},
        },
        "target": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string"},
                "creationPolicy": {"enum": ["Owner", "Orphan", "Merge", "None"]},
            },
        },
        "data": {"type": "array", "minItems": 1, "items": DATA},
    },
}


@pytest.fixture(scope="module")
def kserve() -> ModuleType:
    """kserve's generated models alone: its own __init__ would import a model server and sixty packages."""
    parent = ModuleType("kserve")
    parent.__path__ = [str(package("kserve") / "kserve")]
    sys.modules["kserve"] = parent
    return importlib.import_module("kserve.models")


def problems(kserve: ModuleType, kind: str, value: Any, path: str = "") -> list[str]:
    """Where ``value`` is not what the generated model ``kind`` says; models of Kubernetes itself are left to others."""
    if kind.startswith("list["):
        return [found for i, item in enumerate(value) for found in problems(kserve, kind[5:-1], item, f"{path}[{i}]")]
    if kind in PLAIN:
        return [] if isinstance(value, PLAIN[kind]) else [f"{path}: {value!r} is no {kind}"]
    model = getattr(kserve, kind, None)
    if model is None:
        return [] if re.fullmatch(r"V1\w+|ResourceQuantity", kind) else [f"{path}: {kind} is unknown"]
    fields = {key: model.openapi_types[attribute] for attribute, key in model.attribute_map.items()}
    found = [f"{path}.{key}: {kind} has no such field" for key in value if key not in fields]
    for key in value.keys() & fields.keys():
        found += problems(kserve, fields[key], value[key], f"{path}.{key}")
    return found


def inference_service(rendered: dict[str, list[Manifest]]) -> Manifest:
    (service,) = of_kind(rendered["production"], "InferenceService")
    return service


def test_inference_service_is_what_kserve_takes(rendered: dict[str, list[Manifest]], kserve: ModuleType) -> None:
    service = inference_service(rendered)
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert problems(kserve, "V1beta1InferenceService", service) == []


def test_its_pod_is_what_kubernetes_takes(rendered: dict[str, list[Manifest]], kserve: ModuleType) -> None:
    extension = kserve.V1beta1ComponentExtensionSpec.attribute_map.values()  # minReplicas and the like
    predictor = inference_service(rendered)["spec"]["predictor"]
    spec = {key: value for key, value in predictor.items() if key not in extension}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}
    assert kubernetes_schemas().validate(pod, "1.37", strict=True) == "1.37"


@pytest.mark.parametrize(
    ("where", "what", "said"),
    [
        ("predictor", {"containrs": []}, ".spec.predictor.containrs: V1beta1PredictorSpec has no such field"),
        ("predictor", {"minReplicas": "one"}, ".spec.predictor.minReplicas: 'one' is no int"),
        ("predictor", {"logger": {"url": 1}}, ".spec.predictor.logger.url: 1 is no str"),
        ("predicter", {}, ".spec.predicter: V1beta1InferenceServiceSpec has no such field"),
    ],
)
def test_a_wrong_inference_service_is_found(kserve: ModuleType, where: str, what: Any, said: str) -> None:
    assert problems(kserve, "V1beta1InferenceService", {"spec": {where: what}}) == [said]


def test_external_secrets_are_what_the_operator_takes(rendered: dict[str, list[Manifest]]) -> None:
    found = of_kind(rendered["production"], "ExternalSecret")
    assert [secret["metadata"]["name"] for secret in found] == ["mlflow-database"]
    for secret in found:
        assert secret["apiVersion"] == "external-secrets.io/v1"
        jsonschema.validate(secret["spec"], EXTERNAL_SECRET)


def test_no_other_custom_resource_goes_unchecked(manifests: list[Manifest]) -> None:
    ours = {"ExternalSecret", "InferenceService"}
    custom = {manifest["kind"] for manifest in manifests if re.search(r"\w\.\w", manifest["apiVersion"])}
    assert custom - {"Role", "RoleBinding", "NetworkPolicy"} <= ours
