"""The four images: built, and then looked at from outside and from inside."""

import json
import os
import time
from pathlib import Path
from typing import Any

from components import __version__
from tests.docker.engine import sh

NAMES = ("worker", "cpu", "mlflow", "serving")
PORTS = {"mlflow": 5000, "serving": 8080}
# What a build must not leave: package caches, wheels, sources, anything in temporary or home folders.
LEFTOVERS = """
find /home /tmp /src /root/.cache /var/cache/pip -mindepth 1 2>/dev/null
find / -xdev \\( -name '*.whl' -o -name .git -o -name .env \\) -not -path '/usr/*' 2>/dev/null
true
"""


def name_of(image: str) -> str:
    """The address of one of ours."""
    return f"loraloom/{image}:{__version__}"


def build(root: Path, base: str) -> None:
    """Build all four from wheels made here, without a network; says how long each takes and how large it is."""
    if not list((root / "images/wheelhouse").glob("*.whl")):
        began = time.monotonic()
        sh(root / "images/wheelhouse.sh")
        print(f"  wheelhouse: {time.monotonic() - began:.0f} s", flush=True)
    for name in NAMES:
        began = time.monotonic()
        size = sh(root / "images/build.sh", name, env={**os.environ, "BASE": base})
        print(f"  {size} in {time.monotonic() - began:.0f} s", flush=True)


def check(root: Path) -> None:
    """Raises where an image is not as promised."""
    sha = sh("git", "rev-parse", "HEAD", cwd=root)
    described: dict[str, Any] = {name: json.loads(sh("docker", "inspect", name_of(name)))[0] for name in NAMES}
    for name, image in described.items():
        settings = image["Config"]
        assert settings["User"] == "1000:1000", name
        labels = settings["Labels"]
        assert labels["org.opencontainers.image.title"] == f"loraloom {name}"
        assert labels["org.opencontainers.image.version"] == __version__
        assert labels["org.opencontainers.image.revision"] == sha
        assert ("Healthcheck" in settings) == (name in PORTS), name
        ports = [f"{PORTS[name]}/tcp"] if name in PORTS else []
        assert list(settings.get("ExposedPorts") or ()) == ports, name
        left = inside(name, "sh", "-c", LEFTOVERS, bare=True)
        assert not left, f"{name} holds {left}"
        history = sh("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", name_of(name))
        for secret in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "AWS_", "_TOKEN", "PASSWORD"):
            assert secret not in history and not any(secret in entry for entry in settings["Env"]), (name, secret)
    assert described["cpu"]["Size"] < described["worker"]["Size"]
    for name in ("worker", "cpu"):
        code = (
            "import torch, transformers, peft, mlflow, kfp; from components.artifacts import git_sha; print(git_sha())"
        )
        assert inside(name, "python3", "-c", code).splitlines()[-1] == sha
    assert inside("cpu", "python3", "-c", "import torch; print(torch.version.cuda)") == "None"
    assert "postgresql+psycopg" in inside(
        "mlflow", "python3", "-c",
        "import boto3, sqlalchemy as s; e = s.create_engine('postgresql://h/d'); "
        "print(f'{e.dialect.name}+{e.dialect.driver}')",
    )  # fmt: skip


def inside(name: str, *command: str, bare: bool = False) -> str:
    """What a command prints in a container of the image, as its user, with no network and nothing to write to but /tmp.

    Args:
        bare: not even that: /tmp is the image's own, to be looked at.
    """
    options = ["--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--entrypoint", command[0]]
    writable = [] if bare else ["--tmpfs", "/tmp"]
    return sh("docker", "run", *options, *writable, name_of(name), *command[1:])
