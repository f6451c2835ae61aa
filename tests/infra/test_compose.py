"""The compose file against the Compose specification, and the rules that hold for its containers."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import StorageConfig, TrackingConfig
from tests.infra.conftest import INFRA
from tests.infra.tools import load

COMPOSE = INFRA / "compose" / "compose.yaml"
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?P<operator>:[-?])(?P<rest>[^}]*)\}")


def interpolated(values: dict[str, str]) -> dict[str, Any]:
    """The file as docker compose reads it: variables replaced, then YAML's anchors and merges resolved."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        default = match["rest"] if match["operator"] == ":-" else ""
        return values.get(match["name"]) or default

    return yaml.safe_load(VARIABLE.sub(value, COMPOSE.read_text()))


@pytest.fixture(scope="module")
def environment(infra: Path) -> dict[str, str]:
    lines = (infra / "compose" / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))


@pytest.fixture(scope="module")
def services(environment: dict[str, str]) -> dict[str, Any]:
    return interpolated(environment)["services"]


def test_it_keeps_to_the_specification(environment: dict[str, str]) -> None:
    parse = load("compose_spec", "compose-spec").PyCompose.from_yaml
    text = yaml.safe_dump(interpolated(environment))
    assert parse(text).service_names() == ["bucket", "mlflow", "postgres", "s3", "s3-owner"]
    with pytest.raises(ValueError, match="service_well"):
        parse(text.replace("service_healthy", "service_well"))


def test_docker_compose_takes_it(infra: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "config", "--quiet"]
    ended = subprocess.run(command, cwd=infra / "compose", capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_it_does_not_start_without_secrets() -> None:
    required = {match["name"] for match in VARIABLE.finditer(COMPOSE.read_text()) if match["operator"] == ":?"}
    assert required == {"POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    example = (COMPOSE.parent / ".env.example").read_text()
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == required
    optional = {match["name"] for match in VARIABLE.finditer(COMPOSE.read_text()) if match["operator"] == ":-"}
    assert set(re.findall(r"^#(\w+)=", example, re.MULTILINE)) == optional


def test_containers_may_do_as_little_as_possible(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert re.fullmatch(r"\S+:\d+\.\d+\S*", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    roots = {name: service for name, service in services.items() if service["user"].startswith("0")}
    assert roots.keys() == {"s3-owner"}
    assert (roots["s3-owner"]["network_mode"], roots["s3-owner"]["cap_add"]) == ("none", ["CHOWN"])


def test_what_serves_is_probed_and_waited_for(services: dict[str, Any]) -> None:
    serving = {name for name, service in services.items() if service.get("restart") == "unless-stopped"}
    assert serving == {"postgres", "s3", "mlflow"}
    for name, service in services.items():
        assert ("healthcheck" in service) == (name in serving), name
        for other, wait in service.get("depends_on", {}).items():
            expected = "service_healthy" if other in serving else "service_completed_successfully"
            assert wait == {"condition": expected}, f"{name} waits for {other}"


def test_data_outlives_containers(environment: dict[str, str], services: dict[str, Any]) -> None:
    volumes = interpolated(environment)["volumes"]
    kept = {mount.split(":")[0] for name in ("postgres", "s3") for mount in services[name]["volumes"]}
    assert kept == volumes.keys()


def test_the_readme_s_settings_are_its_addresses(services: dict[str, Any]) -> None:
    text = (INFRA / "README.md").read_text().partition("## Without a cluster")[2]
    shown = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    tracking, storage = TrackingConfig(**shown["tracking"]), StorageConfig(**shown["storage"])
    assert tracking.uri == "http://127.0.0.1:5000"
    assert services["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]
    assert storage.endpoint_url == "http://127.0.0.1:8333"
    assert services["s3"]["ports"] == ["127.0.0.1:8333:8333"]
    assert storage.uri.startswith(f"s3://{services['bucket']['environment']['BUCKET']}/")
    mounted = services["bucket"]["volumes"][0].split(":")[0]
    assert (COMPOSE.parent / mounted).is_file()
