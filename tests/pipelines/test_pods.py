"""What stands in the second document, next to what kfp-kubernetes itself writes for the same wishes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl, kubernetes

from components.cluster_config import ImagesConfig, StepResources
from components.config import RunConfig
from components.image import CPU, WORKER
from pipelines.pods import equip, image, pod, retry_policy
from tests.pipelines.test_cluster import SETTINGS, compiled, containers, pods

ASKED = StepResources.model_validate(
    {
        "cpu": "4",
        "memory": "24Gi",
        "gpus": 2,
        "node_selector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, {"operator": "Exists"}],
        "shm": "8Gi",
        "timeout": 7200,
        "retries": 3,
        "backoff": 30,
    }
)
CONFIG = RunConfig.model_validate(
    SETTINGS
    | {
        "name": "desk_2_",
        "images": {"pull_policy": "Always", "pull_secrets": ["registry"]},
        "cluster": {
            "secrets": {
                "s3": {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"},
                "hub": {"HF_TOKEN": "token"},
            },
            "ca_config_map": "authorities",
            "labels": {"team": "support", "app.kubernetes.io/part-of": "mine"},
        },
    }
)


@dsl.component(base_image=WORKER, packages_to_install=[], install_kfp_package=False)
def train() -> None:
    """A step that does nothing."""


@dsl.pipeline(name="one-step")
def one_step() -> None:
    """What a user of kfp-kubernetes would write."""
    task = train().set_cpu_request("4").set_cpu_limit("4").set_memory_request("24Gi").set_memory_limit("24Gi")
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(2)
    task.set_env_variable("HOME", "/tmp").set_env_variable("HF_HOME", "/tmp/huggingface")
    task.set_env_variable("AWS_CA_BUNDLE", "/etc/loraloom/certificates/ca.crt")
    task.set_retry(3, backoff_duration="30s", backoff_factor=2, backoff_max_duration="3600s")
    kubernetes.use_secret_as_env(task, "s3", {"id": "AWS_ACCESS_KEY_ID", "key": "AWS_SECRET_ACCESS_KEY"})
    kubernetes.use_secret_as_env(task, "hub", {"token": "HF_TOKEN"})
    kubernetes.set_image_pull_policy(task, "Always")
    kubernetes.set_image_pull_secrets(task, ["registry"])
    kubernetes.add_toleration(task, key="gpu", operator="Exists", effect="NoSchedule")
    kubernetes.add_toleration(task, operator="Exists")
    kubernetes.add_node_selector(task, "gpu", "h100")
    kubernetes.empty_dir_mount(task, "scratch", "/tmp")
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="8Gi")
    kubernetes.use_config_map_as_volume(task, "authorities", "/etc/loraloom/certificates")
    kubernetes.set_timeout(task, 7200)
    kubernetes.set_security_context(task, run_as_user=1000, run_as_group=1000, run_as_non_root=True)
    kubernetes.add_pod_label(task, "team", "support")
    kubernetes.add_pod_label(task, "app.kubernetes.io/name", "loraloom")
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "loraloom")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", "train")
    kubernetes.add_pod_label(task, "app.kubernetes.io/instance", "desk_2")


@pytest.fixture
def kfps(tmp_path: Path) -> list[dict[str, Any]]:
    compiler.Compiler().compile(one_step, str(tmp_path / "one.yaml"))
    return list(yaml.safe_load_all((tmp_path / "one.yaml").read_text()))


def test_the_pod_is_the_one_that_kfp_kubernetes_describes(kfps: list[dict[str, Any]]) -> None:
    assert pod("train", CONFIG, ASKED) == pods(kfps[1])["train"]


def test_the_container_is_the_one_that_kfp_describes(kfps: list[dict[str, Any]]) -> None:
    theirs = containers(kfps[0])["train"]
    ours = {"image": WORKER, "command": theirs["command"], "args": theirs["args"]}
    equip(ours, CONFIG.model_copy(update={"images": ImagesConfig()}), ASKED)
    resources = theirs["resources"]
    for old in ("cpuLimit", "cpuRequest", "memoryLimit", "memoryRequest"):  # numbers, for KFP before 2.4
        del resources[old]
    del resources["accelerator"]["type"], resources["accelerator"]["count"]
    assert ours == theirs


def test_retries_are_the_ones_that_kfp_describes(kfps: list[dict[str, Any]]) -> None:
    assert retry_policy(ASKED) == kfps[0]["root"]["dag"]["tasks"]["train"]["retryPolicy"]
    assert retry_policy(StepResources()) == {}


def test_what_is_not_asked_for_is_not_there() -> None:
    plain = pod("weigh", RunConfig.model_validate(SETTINGS), StepResources())
    assert set(plain) == {"imagePullPolicy", "podMetadata", "emptyDirMounts", "securityContext"}


def test_every_pod_may_run_where_only_restricted_ones_may(tmp_path: Path) -> None:
    spec, platform = compiled(tmp_path)
    for step, container in containers(spec).items():
        found = pods(platform)[step]
        assert found["securityContext"] == {"runAsUser": "1000", "runAsGroup": "1000", "runAsNonRoot": True}
        # With the root file system read-only a step can still write: its home and the kfp outputs are on a volume.
        assert {"volumeName": "scratch", "mountPath": "/tmp"} in found["emptyDirMounts"]
        assert {"name": "HOME", "value": "/tmp"} in container["env"]


def test_no_value_of_a_secret_can_stand_in_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-from-the-environment")
    spec, platform = compiled(tmp_path, cluster={"secrets": {"s3": {"AWS_SECRET_ACCESS_KEY": "key"}}})
    assert "hunter2" not in (tmp_path / "pipeline.yaml").read_text()
    assert "AWS_SECRET_ACCESS_KEY" not in str([container["env"] for container in containers(spec).values()])
    for found in pods(platform).values():
        (secret,) = found["secretAsEnv"]
        assert (secret["secretName"], secret["keyToEnv"]) == (
            "s3",
            [{"secretKey": "key", "envVar": "AWS_SECRET_ACCESS_KEY"}],
        )


@pytest.mark.parametrize(
    ("registry", "tag", "name"),
    [
        (None, None, CPU),
        (None, "1", "loraloom/cpu:1"),
        ("localhost:5000", None, f"localhost:5000/{CPU}"),
        ("localhost:5000", "1", "localhost:5000/loraloom/cpu:1"),
    ],
)
def test_image_names(registry: str | None, tag: str | None, name: str) -> None:
    assert image(ImagesConfig(registry=registry, tag=tag), CPU) == name
