"""The manifests, rendered as a person would render them."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.infra.manifests import Manifest
from tests.infra.tools import kubectl

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
OVERLAYS = ("local", "production")
SECRET = "not-a-secret-0123456789"


def fill(example: Path, target: Path) -> None:
    """Write ``target`` as ``example`` says, with values where it has none."""
    lines = example.read_text().splitlines()
    target.write_text("\n".join(f"{line}{SECRET}" if line.endswith("=") else line for line in lines))


@pytest.fixture(scope="session")
def infra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of infra/ with the secrets that a fresh clone lacks."""
    folder = tmp_path_factory.mktemp("infra") / "infra"
    shutil.copytree(INFRA, folder, ignore=shutil.ignore_patterns("*.env", ".env"))
    for example in folder.rglob("*.env.example"):
        fill(example, example.with_suffix(""))
    return folder


@pytest.fixture(scope="session")
def rendered(infra: Path) -> dict[str, list[Manifest]]:
    """The manifests of every overlay."""
    manifests = {}
    for overlay in OVERLAYS:
        command = [str(kubectl()), "kustomize", str(infra / "overlays" / overlay)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert not ended.stderr, ended.stderr
        manifests[overlay] = list(yaml.safe_load_all(ended.stdout))
    return manifests


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest, rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    """One overlay's manifests."""
    return rendered[request.param]
