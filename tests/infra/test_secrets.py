"""No secret is in the tree; every one that is referred to is documented, and comes from where the overlay says."""

import re
import subprocess
from pathlib import Path

import yaml

from tests.infra.conftest import INFRA, ROOT, SECRET
from tests.infra.manifests import Manifest, of_kind, pods, secrets_of


def documented() -> dict[str, set[str]]:
    """Name -> keys, from the README's table of secrets."""
    text = (INFRA / "README.md").read_text().partition("## Secrets")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", text, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", keys)) for name, keys in rows}


def test_every_secret_is_documented(manifests: list[Manifest]) -> None:
    known = documented()
    referred = {(name, key) for pod in pods(manifests) for name, key in secrets_of(pod)}
    assert referred
    for name, key in referred:
        assert name in known, f"{name} is not in the README"
        assert key is None or key in known[name], f"{name} has no key {key}"


def test_local_secrets_come_from_files_that_git_ignores(rendered: dict[str, list[Manifest]]) -> None:
    known = documented()
    made = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each for each in of_kind(rendered["local"], "Secret")
    }
    for pod in pods(rendered["local"]):
        for name, _ in secrets_of(pod):
            assert set(made[pod.namespace, name]["data"]) == known[name]
    assert ("kubeflow", "loraloom-s3") in made, "pipeline pods need the bucket's keys too"
    for example in INFRA.rglob("*.env.example"):
        secret = example.with_suffix("").relative_to(ROOT).as_posix()
        ignored = subprocess.run(["git", "check-ignore", "-q", secret], cwd=ROOT, check=False)
        assert ignored.returncode == 0, secret
        assert SECRET not in example.read_text()
        assert all(
            line.endswith("=") for line in example.read_text().splitlines() if re.match(r"\w+(KEY|PASSWORD)", line)
        )


def test_production_has_no_secret_but_by_reference(rendered: dict[str, list[Manifest]]) -> None:
    known = documented()
    assert of_kind(rendered["production"], "Secret") == []
    fetched = {
        each["spec"]["target"]["name"]: {item["secretKey"] for item in each["spec"]["data"]}
        for each in of_kind(rendered["production"], "ExternalSecret")
    }
    referred = {name for pod in pods(rendered["production"]) for name, _ in secrets_of(pod)}
    assert referred == fetched.keys()
    assert all(known[name] == keys for name, keys in fetched.items())


def test_no_literal_looks_like_a_secret(manifests: list[Manifest]) -> None:
    suspect = re.compile(r"password|secret|token|access_key|private", re.IGNORECASE)
    for pod in pods(manifests):
        for container in pod.containers:
            for variable in container.get("env", []):
                assert not (suspect.search(variable["name"]) and "value" in variable), (
                    f"{pod.owner}: {variable['name']}"
                )
    for config in of_kind(manifests, "ConfigMap"):
        assert not [key for key in config["data"] if suspect.search(key)], config["metadata"]["name"]


def test_the_tree_holds_no_secret() -> None:
    tracked = subprocess.run(["git", "ls-files", "infra"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.split():
        assert not re.search(r"(^|[./])env$", name), name
        if name.endswith(".yaml"):
            kinds = [each.get("kind") for each in yaml.safe_load_all(Path(ROOT, name).read_text()) if each]
            assert "Secret" not in kinds, name
