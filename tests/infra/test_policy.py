"""What holds for every pod, account, policy and image, whatever the overlay."""

import re
from typing import Any

import pytest

from components import __version__
from tests.infra.manifests import Manifest, Pod, named, of_kind, pods, selects

SERVES = {"Deployment", "StatefulSet", "InferenceService"}
UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}


def quantity(text: str) -> float:
    """``250m`` is 0.25, ``1Gi`` is 2**30."""
    number, unit = re.fullmatch(r"([0-9.]+)(\D*)", str(text)).groups()
    return float(number) * UNITS[unit]


def owner(pod: Pod) -> str:
    return pod.owner.partition("/")[0]


def at_once(pod: Pod) -> int:
    """How many of a pod there are while a new version is rolled out."""
    return pod.replicas + (owner(pod) in ("Deployment", "InferenceService"))


def test_all_there_is_to_check_is_found(rendered: dict[str, list[Manifest]]) -> None:
    jobs = {"CronJob/mlflow-backup", "CronJob/mlflow-restore", "CronJob/mlflow-upgrade"}
    local = {"Deployment/mlflow", "StatefulSet/postgres", "StatefulSet/seaweedfs", "Job/create-bucket"}
    assert {pod.owner for pod in pods(rendered["local"])} == jobs | local
    production = {"Deployment/mlflow", "InferenceService/loraloom"}
    assert {pod.owner for pod in pods(rendered["production"])} == jobs | production


def test_everything_is_labelled_as_ours(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "loraloom", named(manifest)


def test_the_namespace_enforces_the_restricted_standard(manifests: list[Manifest]) -> None:
    (namespace,) = of_kind(manifests, "Namespace")
    levels = {
        mode: namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn")
    }
    assert levels == {"enforce": "restricted", "warn": "restricted"}
    assert {pod.namespace for pod in pods(manifests)} == {namespace["metadata"]["name"]}


def test_pods_keep_to_the_restricted_standard(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True, pod.owner
        assert context["runAsUser"] > 0, pod.owner
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, pod.owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys(), pod.owner
        kinds = {kind for volume in pod.spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}, pod.owner
        for container in pod.containers:
            where = f"{pod.owner}, {container['name']}"
            expected = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["securityContext"] == expected, where


def test_no_pod_is_given_a_token_of_the_cluster(manifests: list[Manifest]) -> None:
    accounts = {account["metadata"]["name"]: account for account in of_kind(manifests, "ServiceAccount")}
    for pod in pods(manifests):
        assert pod.spec["automountServiceAccountToken"] is False, pod.owner
        assert accounts[pod.spec["serviceAccountName"]]["automountServiceAccountToken"] is False, pod.owner


def test_every_container_says_what_it_needs(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        for container in pod.containers:
            asked = container["resources"]
            for what in ("cpu", "memory"):
                assert 0 < quantity(asked["requests"][what]) <= quantity(asked["limits"][what]), pod.owner
        for volume in pod.spec.get("volumes", []):
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], f"{pod.owner}, {volume['name']}"


def test_what_serves_is_probed_and_on_a_port_that_it_opens(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        for container in pod.spec["containers"] if owner(pod) in SERVES else []:
            assert container["ports"], pod.owner
            opened = {port.get(key) for port in container["ports"] for key in ("name", "containerPort")}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container[probe].get("httpGet", {"port": container["ports"][0]["containerPort"]})
                assert asked["port"] in opened, f"{pod.owner}, {probe}"


def test_services_lead_to_pods(manifests: list[Manifest]) -> None:
    for service in of_kind(manifests, "Service"):
        behind = [pod for pod in pods(manifests) if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        assert len(behind) == 1, named(service)
        opened = {port["name"] for container in behind[0].containers for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= opened, named(service)
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP", named(service)


def test_the_tracking_server_may_move_but_not_vanish(manifests: list[Manifest]) -> None:
    budgets = {budget["metadata"]["name"]: budget["spec"] for budget in of_kind(manifests, "PodDisruptionBudget")}
    assert budgets["mlflow"]["maxUnavailable"] == 1
    covered = [pod for pod in pods(manifests) if selects(budgets["mlflow"]["selector"], pod.labels)]
    assert [pod.owner for pod in covered] == ["Deployment/mlflow"]


def test_images_are_pinned(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        for container in pod.containers:
            name, tag = container["image"].rsplit(":", 1)
            assert re.fullmatch(r"\d+\.\d+(\.\d+)?(-[a-z]+)?", tag), container["image"]
            if "loraloom/" in name:
                assert tag == __version__, container["image"]


def policies_of(manifests: list[Manifest], pod: Pod, kind: str) -> list[dict[str, Any]]:
    """The policies that select a pod for traffic of one kind, except the one that denies everything."""
    specs = [
        policy["spec"]
        for policy in of_kind(manifests, "NetworkPolicy")
        if policy["metadata"]["namespace"] == pod.namespace and policy["metadata"]["name"] != "default-deny"
    ]
    return [spec for spec in specs if kind in spec["policyTypes"] and selects(spec["podSelector"], pod.labels)]


def test_everything_is_denied_that_is_not_allowed(manifests: list[Manifest]) -> None:
    policies = {policy["metadata"]["name"]: policy for policy in of_kind(manifests, "NetworkPolicy")}
    denied = policies["default-deny"]
    assert denied["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {pod.namespace for pod in pods(manifests)} == {denied["metadata"]["namespace"]}
    for name, policy in policies.items():
        for kind, other in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(kind, []):
                assert rule.get(other), f"{name}: open to everyone"


def test_what_serves_is_let_in_on_its_port_only(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        allowed = {
            port["port"]
            for spec in policies_of(manifests, pod, "Ingress")
            for rule in spec["ingress"]
            for port in rule["ports"]
        }
        opened = {port["containerPort"] for container in pod.containers for port in container.get("ports", [])}
        assert allowed == opened, pod.owner


@pytest.mark.parametrize(
    ("overlay", "client", "server", "port"),
    [
        ("local", "Deployment/mlflow", "StatefulSet/postgres", 5432),
        ("local", "CronJob/mlflow-backup", "StatefulSet/postgres", 5432),
        ("local", "CronJob/mlflow-restore", "StatefulSet/postgres", 5432),
        ("local", "CronJob/mlflow-upgrade", "StatefulSet/postgres", 5432),
        ("local", "Deployment/mlflow", "StatefulSet/seaweedfs", 8333),
        ("local", "CronJob/mlflow-backup", "StatefulSet/seaweedfs", 8333),
        ("local", "CronJob/mlflow-restore", "StatefulSet/seaweedfs", 8333),
        ("local", "Job/create-bucket", "StatefulSet/seaweedfs", 8333),
        ("production", "InferenceService/loraloom", "Deployment/mlflow", 5000),
    ],
)
def test_who_needs_whom_is_allowed_at_both_ends(
    rendered: dict[str, list[Manifest]], overlay: str, client: str, server: str, port: int
) -> None:
    manifests = rendered[overlay]
    by_owner = {pod.owner: pod for pod in pods(manifests)}
    for kind, other, pod, peer in (("Egress", "to", client, server), ("Ingress", "from", server, client)):
        rules = [
            rule
            for spec in policies_of(manifests, by_owner[pod], kind)
            for rule in spec[kind.lower()]
            if port in [allowed["port"] for allowed in rule["ports"]]
        ]
        peers = [
            each for rule in rules for each in rule[other] if "namespaceSelector" not in each and "podSelector" in each
        ]
        assert any(selects(each["podSelector"], by_owner[peer].labels) for each in peers), f"{kind} of {pod}"


@pytest.mark.parametrize(("server", "port"), [("Deployment/mlflow", 5000), ("StatefulSet/seaweedfs", 8333)])
def test_pipeline_pods_reach_what_they_need(rendered: dict[str, list[Manifest]], server: str, port: int) -> None:
    pod, namespace = {"app.kubernetes.io/part-of": "loraloom"}, {"loraloom.io/runs": "true"}
    (service,) = (each for each in pods(rendered["local"]) if each.owner == server)
    let_in = [
        peer
        for spec in policies_of(rendered["local"], service, "Ingress")
        for rule in spec["ingress"]
        for peer in rule["from"]
        if peer.keys() == {"namespaceSelector", "podSelector"}
    ]
    assert any(selects(peer["namespaceSelector"], namespace) and selects(peer["podSelector"], pod) for peer in let_in)
    (runs,) = (each["spec"] for each in rendered["local"] if named(each) == "NetworkPolicy/loraloom-runs")
    ours = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": service.namespace}}}
    assert port in [each["port"] for rule in runs["egress"] if ours in rule["to"] for each in rule["ports"]]


def test_the_database_is_asked_by_its_clients_only(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["local"]
    (server,) = (pod for pod in pods(manifests) if pod.owner == "StatefulSet/postgres")
    peers = [
        each for spec in policies_of(manifests, server, "Ingress") for rule in spec["ingress"] for each in rule["from"]
    ]
    asking = {pod.owner for pod in pods(manifests) for each in peers if selects(each["podSelector"], pod.labels)}
    assert asking == {"Deployment/mlflow"} | {f"CronJob/mlflow-{job}" for job in ("backup", "restore", "upgrade")}


def test_rights_are_named_one_by_one(manifests: list[Manifest]) -> None:
    roles = of_kind(manifests, "Role")
    assert {role["metadata"]["name"] for role in roles} == {
        "loraloom-pipeline",
        "loraloom-trainjobs",
        "loraloom-submitter",
    }
    assert not of_kind(manifests, "ClusterRole") + of_kind(manifests, "ClusterRoleBinding")
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], named(role)
            assert rule["resources"] != ["secrets"] or (rule["resourceNames"] and rule["verbs"] == ["get"]), named(role)


def test_roles_are_bound_to_accounts_that_exist(manifests: list[Manifest]) -> None:
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]) for role in of_kind(manifests, "Role")}
    accounts = {
        (each["metadata"]["namespace"], each["metadata"]["name"]) for each in of_kind(manifests, "ServiceAccount")
    }
    bound = set()
    for binding in of_kind(manifests, "RoleBinding"):
        bound.add((binding["metadata"]["namespace"], binding["roleRef"]["name"]))
        for subject in binding["subjects"]:
            assert subject["kind"] == "Group" or (subject["namespace"], subject["name"]) in accounts, named(binding)
    assert bound == roles


def test_all_of_it_fits_into_the_quota(manifests: list[Manifest]) -> None:
    (quota,) = (
        each["spec"]["hard"] for each in of_kind(manifests, "ResourceQuota") if each["metadata"]["name"] == "loraloom"
    )
    assert of_kind(manifests, "LimitRange"), "containers without resources would be refused"
    for level in ("requests", "limits"):
        for what in ("cpu", "memory"):
            total = 0.0
            for pod in pods(manifests):
                needs = [quantity(each["resources"][level][what]) for each in pod.spec["containers"]]
                first = [quantity(each["resources"][level][what]) for each in pod.spec.get("initContainers", [])]
                total += at_once(pod) * max(sum(needs), *first, 0.0)
            assert total <= quantity(quota[f"{level}.{what}"]), f"{level}.{what}"
    gpus = sum(
        at_once(pod) * int(each["resources"]["requests"].get("nvidia.com/gpu", 0))
        for pod in pods(manifests)
        for each in pod.spec["containers"]
    )
    assert gpus <= int(quota["requests.nvidia.com/gpu"])


def test_a_shared_namespace_is_left_alone(manifests: list[Manifest]) -> None:
    """Where pipeline pods run, others do too: no quota that theirs would have to know, no policy that selects them."""
    shared = [manifest for manifest in manifests if manifest["metadata"].get("namespace") == "kubeflow"]
    (quota,) = of_kind(shared, "ResourceQuota")
    assert not {"pods", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"} & quota["spec"]["hard"].keys()
    assert not of_kind(shared, "LimitRange")
    (policy,) = of_kind(shared, "NetworkPolicy")
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app.kubernetes.io/part-of": "loraloom"}}
