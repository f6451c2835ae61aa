"""Every manifest against the schemas of the Kubernetes versions that the README names."""

import re

import pytest

from tests.infra.conftest import INFRA
from tests.infra.manifests import Manifest, named
from tests.infra.tools import kubernetes_schemas

VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
CUSTOM = ("external-secrets.io", "serving.kserve.io")  # test_custom_resources.py has these


def test_the_readme_names_the_versions() -> None:
    named = re.search(r"Kubernetes (1\.\d+) to (1\.\d+)", (INFRA / "README.md").read_text())
    assert named is not None
    assert named.groups() == (VERSIONS[0], VERSIONS[-1])


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version: str, manifests: list[Manifest]) -> None:
    validator = kubernetes_schemas()
    for manifest in manifests:
        if not manifest["apiVersion"].startswith(CUSTOM):
            assert validator.validate(manifest, version, strict=True) == version, named(manifest)


def test_a_wrong_manifest_is_found() -> None:
    validator = kubernetes_schemas()
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}}
    validator.validate(account, VERSIONS[-1], strict=True)
    with pytest.raises(validator.ValidationError, match="automount"):
        validator.validate(account | {"automount": False}, VERSIONS[-1], strict=True)
