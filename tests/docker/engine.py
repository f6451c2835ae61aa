"""An engine and a base image to build on, where the machine gives them; else the reason why not."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PUBLISHED_BASE = "python:3.11-slim-bookworm"
OWN_BASE = "loraloom-base:bookworm"
SECONDS_TO_START = 60


class Skip(Exception):
    """The check cannot be made on this machine; the text says why."""


def sh(*command: str | Path, check: bool = True, **how: object) -> str:
    """Run a command; returns what it printed. A failure shows the command's own words."""
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload]
    if check and ended.returncode:
        raise AssertionError(f"{command} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return str(ended.stdout).strip()


def answers() -> bool:
    """Whether an engine is up and may be used."""
    return (
        shutil.which("docker") is not None and not subprocess.run(["docker", "version"], capture_output=True).returncode
    )


@contextmanager
def engine(folder: Path) -> Iterator[None]:
    """A running engine: the machine's own, or one started by hand under ``folder`` and stopped afterwards."""
    if answers():
        yield
        return
    if os.getuid() or not shutil.which("dockerd"):
        raise Skip("no Docker engine answers; starting one takes root and dockerd (Debian: docker.io)")
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "-p", folder / "pid"],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not answers():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise Skip(f"dockerd does not come up: {(folder / 'dockerd.log').read_text()[-500:]}")
            time.sleep(0.5)
        yield
    finally:
        daemon.terminate()
        daemon.wait()


def base_image(folder: Path) -> str:
    """An image with Python 3.11: the one in BASE, the published one, or a Debian made here."""
    for image in filter(None, (os.environ.get("BASE"), PUBLISHED_BASE, OWN_BASE)):
        if sh("docker", "image", "ls", "--quiet", image):
            return image
    if not subprocess.run(["docker", "pull", "--quiet", PUBLISHED_BASE], capture_output=True).returncode:
        return PUBLISHED_BASE
    if os.getuid() or not shutil.which("debootstrap"):
        raise Skip(f"{PUBLISHED_BASE} cannot be pulled; making a stand-in takes root and debootstrap")
    packages = "--include=python3,python3-venv,ca-certificates"
    sh("debootstrap", "--variant=minbase", packages, "bookworm", folder / "rootfs")
    sh("sh", "-c", f"tar -C {folder / 'rootfs'} -c . | docker import - {OWN_BASE}")
    return OWN_BASE
