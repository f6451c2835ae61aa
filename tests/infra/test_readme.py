"""What infra/README.md says exists: jobs, deployments, accounts, labels, files; and every file here is of use."""

import re
from pathlib import Path

import yaml

from components.config import StorageConfig, TrackingConfig
from tests.infra.conftest import INFRA, OVERLAYS
from tests.infra.manifests import Manifest, of_kind

README = (INFRA / "README.md").read_text()


def names(manifests: list[Manifest], kind: str) -> set[str]:
    return {manifest["metadata"]["name"] for manifest in of_kind(manifests, kind)}


def test_jobs_and_deployments_exist(manifests: list[Manifest]) -> None:
    jobs = set(re.findall(r"cronjob/([\w-]+)", README))
    assert jobs == names(manifests, "CronJob")
    deployments = set(re.findall(r"deployment/([\w-]+)", README))
    assert deployments - {"loraloom-predictor"} == names(manifests, "Deployment")  # KServe makes that one
    assert set(re.findall(r"service/([\w-]+)", README)) <= names(manifests, "Service")


def test_a_selected_job_is_labelled(manifests: list[Manifest]) -> None:
    (wanted,) = re.findall(r"--selector app.kubernetes.io/name=([\w-]+)", README)
    labelled = [each for each in manifests if each["metadata"]["labels"].get("app.kubernetes.io/name") == wanted]
    assert [each["kind"] for each in labelled] == ["CronJob"]


def test_the_labels_it_sets_are_those_the_policies_ask_for(manifests: list[Manifest]) -> None:
    told = set(re.findall(r"(loraloom\.io/\w+)=true", README))
    selectors = [
        peer.get("namespaceSelector", {}).get("matchLabels", {})
        for policy in of_kind(manifests, "NetworkPolicy")
        for rule in policy["spec"].get("ingress", [])
        for peer in rule.get("from", [])
    ]
    assert told == {label for selector in selectors for label in selector}


def test_accounts_are_explained(rendered: dict[str, list[Manifest]]) -> None:
    table = README.partition("### Who may do what")[2].partition("###")[0]
    every = set().union(*(names(manifests, "ServiceAccount") for manifests in rendered.values()))
    assert every == set(re.findall(r"`([\w-]+)`(?=[^|]*\|[^|]*\|)", table)) - {"loraloom-submitters", "kfp-launcher"}


def test_the_settings_lead_to_services(rendered: dict[str, list[Manifest]]) -> None:
    shown = yaml.safe_load(re.search(r"5\. The lines.*?```yaml\n(.*?)```", README, re.DOTALL)[1])
    tracking, storage = TrackingConfig(**shown["tracking"]), StorageConfig(**shown["storage"])
    addresses = {
        f"http://{each['metadata']['name']}.{each['metadata']['namespace']}.svc.cluster.local:{port['port']}"
        for each in of_kind(rendered["local"], "Service")
        for port in each["spec"]["ports"]
    }
    assert {tracking.uri, storage.endpoint_url} <= addresses
    assert shown["cluster"]["service_account"] in names(rendered["local"], "ServiceAccount")
    (bucket,) = (each["data"] for each in of_kind(rendered["local"], "ConfigMap") if "BUCKET" in each["data"])
    assert storage.uri.startswith(f"s3://{bucket['BUCKET']}/")
    assert bucket["AWS_ENDPOINT_URL_S3"] == storage.endpoint_url
    hosts = [
        variable["value"].split(",")
        for each in of_kind(rendered["local"], "Deployment")
        for variable in each["spec"]["template"]["spec"]["containers"][0]["env"]
        if variable["name"] == "MLFLOW_SERVER_ALLOWED_HOSTS"
    ]
    assert tracking.uri.removeprefix("http://") in hosts[0]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (INFRA / target).exists(), target
    anchors = {f"#{title.lower().replace(' ', '-')}" for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}
    assert set(re.findall(r"\]\((#[^)]+)\)", README)) <= anchors


def test_every_file_is_part_of_an_overlay() -> None:
    reached: set[Path] = set()

    def follow(folder: Path) -> None:
        told = yaml.safe_load((folder / "kustomization.yaml").read_text())
        reached.add(folder / "kustomization.yaml")
        files = [*told.get("resources", []), *told.get("components", [])]
        files += [patch["path"] for patch in told.get("patches", [])]
        files += [file for generated in told.get("configMapGenerator", []) for file in generated.get("files", [])]
        for path in ((folder / file).resolve() for file in files):
            if path.is_dir():
                follow(path)
            else:
                reached.add(path)

    for overlay in OVERLAYS:
        follow(INFRA / "overlays" / overlay)
    every = {path for suffix in ("*.yaml", "*.py") for path in INFRA.rglob(suffix)}
    assert every - reached == {INFRA / "compose" / "compose.yaml"}
