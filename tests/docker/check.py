"""Builds the images and runs a small project in containers: python -m tests.docker.check [FOLDER] [--demo]

Not part of `make test`: it takes an engine (or root and dockerd), some 10 GB and an hour. It says why where it
cannot run. Run it as root where the engine has to be started; the pipeline runs as an ordinary user all the same.
``--demo`` also runs the demo in containers, ten minutes more.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.docker import images, servers
from tests.docker.engine import Skip, base_image, engine, sh
from tests.e2e.project import LABELS, settings, write_project
from tests.integration.servers import mlflow_server, swift_server

ROOT = Path(__file__).parents[2]
ORDINARY = 12345  # a user and a group that own nothing else


def main() -> None:
    """Everything, in order; the first thing that is not as it should be raises."""
    given = [word for word in sys.argv[1:] if word != "--demo"]
    folder = Path(given[0] if given else tempfile.mkdtemp(prefix="loraloom-docker-")).absolute()
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
            project.check_stopping()
            project.check_servers(folder)
            if "--demo" in sys.argv:
                project.check_demo()
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

    def started(self, *arguments: str | Path, **more: str) -> "subprocess.Popen[str]":
        """The command as an ordinary user gives it, one who may use the engine; ``more`` environment variables."""
        home = {"HOME": str(self.config.parent), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        return subprocess.Popen(
            [*self.as_owner, sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.config.parent,
            env={**os.environ, **home, **more},
            # A shell starts what it puts into the background deaf to Ctrl-C, and a child would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def loraloom(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """The same to its end."""
        process = self.started(*arguments, **more)
        out, errors = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    def changed(self, name: str, sections: dict[str, Any]) -> Path:
        """A config beside the project's, with some sections replaced; returns its path."""
        path = self.config.with_name(f"{name}.yaml")
        path.write_text(yaml.safe_dump(settings() | sections))
        return path

    def run(self, root: Path, runner: str, config: Path | None = None) -> dict[str, Any]:
        """A run that ends well; returns the summary in its folder, and under ``told`` what was printed."""
        began = time.monotonic()
        ended = self.loraloom("run", "-c", config or self.config, "--root", root, "--runner", runner)
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
        assert not self.containers("--all")

        apart = self.run(self.root.with_name("in-processes"), "subprocess")
        assert contained["groups"] == apart["groups"]
        both = {label: (contained["artifacts"].get(label), made) for label, made in apart["artifacts"].items()}
        different = [label for label, (one, other) in both.items() if one is None or one["digest"] != other["digest"]]
        assert not [label for label in different if label.startswith("dataset/")], different
        told("artifacts", f"{len(both) - len(different)} of {len(both)} are the same to the last bit")
        again = self.run(self.root, "subprocess")
        assert "nothing changed since version 1 was made" in again["told"], again["told"]
        regated = self.changed("regated", {"registry": {"margin": 0.9, "floor": 0.9}})
        anew = self.run(self.root, "subprocess", regated)
        fresh = {step["step"] for step in anew["cost"]["steps"] if not step["reused"]}
        assert anew["run_id"] != contained["run_id"] and anew["promotion"]["decision"] == "unchanged"
        assert not {"prepare", "warm_start", "extract", "estimate", "train", "boost"} & fresh, fresh

    def check_failures(self) -> None:
        """A step that fails in its container fails the run, in the step's own words."""
        path = self.changed("wrong", {"warm_start": {"samples_per_dataset": 16, "learning_rate": 1e30}})
        failures = []
        for _ in range(3):
            ended = self.loraloom("run", "-c", path, "--root", self.root, "--runner", "docker")
            failures.append((ended.returncode, "warm_start" in ended.stdout, ended.stderr.splitlines()[0]))
        told("a step that fails", failures[0][2])
        assert {failure[:2] for failure in failures} == {(2, True)}, failures

        path = self.changed("missing", {"images": {"tag": "no-such-tag"}})
        ended = self.loraloom("run", "-c", path, "--root", self.root, "--runner", "docker")
        assert (ended.returncode, "images are missing" in ended.stderr) == (2, True), ended.stderr

    def containers(self, *which: str) -> list[str]:
        """The containers of our runs, by id: those at work, or ``--all``."""
        return sh("docker", "ps", *which, "--quiet", "--filter", "label=loraloom.root").split()

    def check_stopping(self) -> None:
        """Ctrl-C or SIGTERM while a step is at work in its container: nothing is left, and the same command goes on."""
        root = self.root.with_name("stopped")
        for number, reached in ((signal.SIGINT, "store/dataset"), (signal.SIGTERM, "store/start")):
            process = self.started("run", "-c", self.config, "--root", root, "--runner", "docker")
            while not (self.containers() and (root / reached).is_dir()):
                assert process.poll() is None, process.communicate()
                time.sleep(0.2)
            process.send_signal(number)
            began = time.monotonic()
            _, errors = process.communicate()
            told(f"stopped by {number.name}", f"after {time.monotonic() - began:.1f} s: {' '.join(errors.split())}")
            assert process.returncode == 130
            assert errors.splitlines() == ["error: stopped", "-> the same command goes on from what is finished"]
            assert not self.containers("--all")
        ended = self.loraloom("plan", "-c", self.config, "--root", root, "--runner", "docker")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "prepare: reused" in ended.stdout
        assert "loraloom run" in ended.stdout and "--runner docker" in ended.stdout

    def check_servers(self, folder: Path) -> None:
        """With everything in a bucket of a real S3 server, and MLflow's server before it: no store on this machine."""
        where = folder / "servers"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        with swift_server(where) as bucket, mlflow_server(bucket, where) as address:
            kept = {"tracking": {"uri": address}, "storage": bucket.storage().model_dump(mode="json")}
            path, root = self.changed("bucket", kept), self.root.with_name("bucket")
            began = time.monotonic()
            ended = self.loraloom("run", "-c", path, "--root", root, "--runner", "docker", **bucket.environment)
            assert ended.returncode == 0, ended.stdout + ended.stderr
            summary = json.loads((root / "summary.json").read_text())
            told("a run, docker, in a bucket", f"{time.monotonic() - began:.0f} s, {summary['promotion']['decision']}")
            assert not (root / "store").exists()
            held = bucket.client().list_objects_v2(Bucket="bucket", Prefix="loraloom/staged/")["Contents"]
            assert {part for entry in held for part in entry["Key"].split("/")} >= {*LABELS, "model"}
            assert not self.containers("--all")

    def check_demo(self) -> None:
        """The demo, every step in its container."""
        began, folder = time.monotonic(), self.root.with_name("demo")
        ended = self.loraloom("demo", folder, "--runner", "docker")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        told("the demo, docker", f"{time.monotonic() - began:.0f} s\n{ended.stdout[-1500:]}")


if __name__ == "__main__":
    main()
