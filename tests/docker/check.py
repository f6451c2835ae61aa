"""Builds the images and runs a small project in containers: python -m tests.docker.check [FOLDER]

Not part of `make test`: it takes an engine (or root and dockerd), some 10 GB and half an hour. It says why where it
cannot run. Run it as root where the engine has to be started; the pipeline runs as an ordinary user all the same.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.docker import images, servers
from tests.docker.engine import Skip, base_image, engine, sh
from tests.e2e.project import settings, write_project

ROOT = Path(__file__).parents[2]
ORDINARY = 12345  # a user and a group that own nothing else


def main() -> None:
    """Everything, in order; the first thing that is not as it should be raises."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="loraloom-docker-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with engine(folder):
            base = base_image(folder)
            told("building on", base)
            images.build(ROOT, base)
            images.check(ROOT)
            told("images", "are as they should be")
            project = Project(folder / "project")
            project.check_runs()
            project.check_failures()
            servers.check(project.root)
            told("servers", "are healthy and answer")
    except Skip as reason:
        told("skipped", str(reason))


def told(what: str, how: str) -> None:
    """Say how far we are."""
    print(f"[{time.strftime('%H:%M:%S')}] {what}: {how}", flush=True)


class Project:
    """The end-to-end tests' small project, run by someone who is not root."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.config, self.root = write_project(folder), folder / "in-containers"
        self.owner, self.as_owner = os.getuid(), list[str]()
        if self.owner == 0:
            self.owner = ORDINARY
            engine_group = Path("/var/run/docker.sock").stat().st_gid
            who = f"--reuid={ORDINARY} --regid={ORDINARY} --groups={engine_group}"
            # It may read what root reads: the Python we run with may lie in root's home.
            self.as_owner = f"setpriv {who} --inh-caps=+dac_read_search --ambient-caps=+dac_read_search".split()
        sh("chown", "-R", f"{self.owner}:{self.owner}", folder)

    def loraloom(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The command as an ordinary user gives it, one who may use the engine."""
        environment = {**os.environ, "HOME": str(self.config.parent), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        return subprocess.run(
            [*self.as_owner, sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.config.parent,
            env=environment,
        )

    def run(self, root: Path, runner: str) -> dict[str, Any]:
        """A run that ends well; returns its summary."""
        began = time.monotonic()
        ended = self.loraloom("run", "-c", self.config, "--root", root, "--runner", runner)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        told(f"a run, {runner}", f"{time.monotonic() - began:.0f} s")
        summary: dict[str, Any] = json.loads((root / "summary.json").read_text())
        return summary | {"told": ended.stdout}

    def check_runs(self) -> None:
        """Containers give what processes give, leave nothing behind, and either reuses what the other made."""
        contained = self.run(self.root, "docker")
        for line in ("stage film: finished", "prepare: finished", "train multitask: finished", "promote: finished"):
            assert line in contained["told"], line
        label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
        made_at = sh("docker", "inspect", "--format", label, images.name_of("worker"))
        theta = self.root / "store" / contained["artifacts"]["start"]["key"] / "manifest.json"
        assert json.loads(theta.read_text())["made_by"]["git_sha"] == made_at
        foreign = [path for path in self.root.rglob("*") if path.lstat().st_uid != self.owner]
        assert not foreign, foreign
        assert not (self.root / "tmp").exists()
        assert not sh("docker", "ps", "--all", "--quiet", "--filter", "label=loraloom.root")

        apart = self.run(self.root.with_name("in-processes"), "subprocess")
        assert contained["groups"] == apart["groups"]
        both = {label: (contained["artifacts"].get(label), made) for label, made in apart["artifacts"].items()}
        different = [label for label, (one, other) in both.items() if one is None or one["digest"] != other["digest"]]
        assert not [label for label in different if label.startswith("dataset/")], different
        told("artifacts", f"{len(both) - len(different)} of {len(both)} are the same to the last bit")
        again = self.run(self.root, "subprocess")
        fresh = [step["step"] for step in again["cost"]["steps"] if not step["reused"]]
        assert not {"warm_start", "extract", "train", "boost"} & set(fresh), fresh

    def check_failures(self) -> None:
        """A step that fails in its container fails the run, in the step's own words."""
        wrong = settings()
        wrong["warm_start"]["learning_rate"] = 1e30
        path = self.config.with_name("wrong.yaml")
        path.write_text(yaml.safe_dump(wrong))
        failures = []
        for _ in range(3):
            ended = self.loraloom("run", "-c", path, "--root", self.root, "--runner", "docker")
            failures.append((ended.returncode, "warm_start" in ended.stdout, ended.stderr.splitlines()[0]))
        told("a step that fails", failures[0][2])
        assert {failure[:2] for failure in failures} == {(2, True)}, failures

        missing = settings() | {"images": {"tag": "no-such-tag"}}
        path.write_text(yaml.safe_dump(missing))
        ended = self.loraloom("run", "-c", path, "--root", self.root, "--runner", "docker")
        assert (ended.returncode, "images are missing" in ended.stderr) == (2, True), ended.stderr


if __name__ == "__main__":
    main()
