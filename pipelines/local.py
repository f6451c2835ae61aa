"""Runs the pipeline on this machine, in processes of its own, and shows how it gets on.

Everything of a run stands under one folder, its root: the store, MLflow's database, what kfp passes around, and logs.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

import pipelines
from components import events
from components.config import RunConfig
from components.config_file import resolved
from components.config_transport import pack
from components.errors import UserError, writable
from components.interrupt import termination_as_interrupt
from components.object_store import open_store
from components.step import read_records
from pipelines.catalogue import PIPELINES, Until, graph_of
from pipelines.crash import TAIL_LINES, failure
from pipelines.progress import Event, Tail, open_view

Runner = Literal["subprocess", "docker"]
TASKS_AT_ONCE = 2  # kfp's local runner never runs more
GPUS = Path("/proc/driver/nvidia/gpus")  # a look that does not import torch
SECONDS_TO_STOP = 10.0
AT_WORK = "at-work"  # holds the name of the run under way
# Threads that spin while they wait take the cores from the other step. But a moment of it, some microseconds, bridges
# small operations in a row: without, two threads solve for small groups four times slower than one.
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}


def default_root(config: RunConfig) -> Path:
    """Where a run's files go unless told otherwise."""
    return Path(".loraloom") / config.name


def run_local(
    config: RunConfig,
    root: Path,
    *,
    until: Until = "promote",
    runner: Runner = "subprocess",
    debug: bool = False,
) -> dict[str, Any]:
    """Run a pipeline to its end and collect the summary.

    Args:
        root: the folder that takes everything; made if need be.
        until: the step that the pipeline ends with; ``promote`` is the whole of it.
        runner: whether a step is a process, or a container with one of loraloom's images.
        debug: also copy the raw log to stderr as it grows.

    Raises:
        UserError: a step met something the user can put right, or another run is at work under ``root``.
        PipelineCrash: a step died otherwise.
    """
    root = Path(os.path.abspath(root))
    config = resolved(config, root)
    run_name = f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with locked(root) as lock, _as_steps_see_it(config, root, PIPELINES[until], runner) as config:
        _end_abandoned(config, root)
        (root / AT_WORK).write_text(run_name, encoding="utf-8")
        try:
            execute(PIPELINES[until], pack(config), root, run_name, lock=lock, runner=runner, debug=debug)
        except BaseException as error:
            try:
                _fail_tracked_run(config, run_name)
            except Exception as other:  # the first failure is the one to tell; this one goes beside it
                error.add_note(f"MLflow's run could not be ended either: {other}")
            if isinstance(error, Exception):  # nobody needs to be told of a run that they stopped
                _alert(config, run_name, error, root)
            raise
        finally:
            (root / AT_WORK).unlink()
        from pipelines.summary import collect

        return collect(config, root, run_name)


@contextmanager
def _as_steps_see_it(config: RunConfig, root: Path, pipeline: str, runner: Runner) -> Iterator[RunConfig]:
    """The config with addresses that hold where the steps run."""
    if runner == "subprocess":
        yield config
        return
    from pipelines.docker_runner import containers

    executors = graph_of(pipeline).pipeline_spec.deployment_spec["executors"]
    images = {executor["container"]["image"] for executor in executors.values()}
    with containers(config, root, images) as staged:
        yield staged


def _alert(config: RunConfig, run_name: str, error: Exception, root: Path) -> None:
    """Tell the webhook, if there is one, that the run failed."""
    from components.alerts import alert_failure

    what, *more = str(error).splitlines()
    details = {"more": more[-TAIL_LINES:], "log": str(root / "logs" / f"{run_name}.log")}
    if trouble := alert_failure(config, run_name, what, details):
        Console(stderr=True).print(Text(trouble, style="yellow"), soft_wrap=True)


def _end_abandoned(config: RunConfig, root: Path) -> None:
    """End MLflow's run of a command that was killed before it could: whoever holds the lock knows it is gone."""
    if (root / AT_WORK).is_file():
        _fail_tracked_run(config, (root / AT_WORK).read_text(encoding="utf-8"))


def _fail_tracked_run(config: RunConfig, run_name: str) -> None:
    """End MLflow's parent run, if the pipeline got so far as to open it: a killed pipeline runs no exit handler."""
    opened = [r for r in read_records(open_store(config.storage, Path()), run_name) if r["step"] == "open_run"]
    if opened:
        from components import tracking

        client = tracking.connect(str(config.tracking.uri))
        tracking.close_run(client, opened[0]["facts"]["run_id"], failed=True)


@contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold ``root`` for one run; yields the lock's file descriptor.

    Whoever inherits the descriptor holds the lock too, so that steps which outlive a killed command still guard it.
    """
    with writable(root):
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 100).decode().strip() or "another process"
            raise UserError(
                f"{root} is in use by another run ({holder})", remedy="wait for it, stop it, or give another --root"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)


@dataclass(frozen=True)
class _Files:
    """What one run writes for people to read."""

    job: Path
    log: Path
    events: Path


def execute(
    pipeline: str,
    config: str,
    root: Path,
    run_name: str,
    *,
    lock: int,
    runner: Runner = "subprocess",
    debug: bool = False,
) -> None:
    """Run ``pipeline`` ("module:attribute") in a process of its own until it ends, showing its events.

    Raises:
        UserError, PipelineCrash: as :func:`run_local`.
    """
    logs = root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    files = _Files(*(logs / f"{run_name}.{ending}" for ending in ("job.json", "log", "events.jsonl")))
    job = {"pipeline": pipeline, "config": config, "run_name": run_name, "runner": runner}
    files.job.write_text(json.dumps(job | {"pipeline_root": str(root / "pipeline")}), encoding="utf-8")
    with files.log.open("wb") as output, termination_as_interrupt():  # a stopped command leaves no steps behind
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "pipelines.run_pipeline", str(files.job)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(files.events),
            start_new_session=True,  # a process group of its own: it is stopped as a whole
            pass_fds=(lock,),
        )
        try:
            seen = _follow(process, files, debug)
        finally:
            _stop(process)
    if process.returncode != 0:
        raise failure(seen, files.log)


def _environment(events_file: Path) -> dict[str, str]:
    """The steps' environment. Steps at work together share the cores, but no GPU; nothing reports home."""
    at_once = 1 if GPUS.is_dir() else TASKS_AT_ONCE
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = str(max(1, cores // at_once))
    source = str(Path(pipelines.__file__).parents[1])
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        **({} if "OMP_WAIT_POLICY" in os.environ else WAITING),
        "LORALOOM_PARALLELISM": str(at_once),
        **os.environ,
        events.VARIABLE: str(events_file),
        # Our packages first and the working directory not at all: a folder 'pipelines' there must not hide ours.
        "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _follow(process: "subprocess.Popen[bytes]", files: _Files, debug: bool) -> list[Event]:
    """Show events until the process ends; returns all of them."""
    tail, seen = Tail(files.events), list[Event]()
    console, errors = Console(), Console(stderr=True)
    with open_view(console) as view, files.log.open(encoding="utf-8", errors="replace") as log:
        running = True
        while running:
            running = process.poll() is None  # asked before reading, so that the last events are not missed
            for event in tail.read():
                seen.append(event)
                view.show(event)
            if debug and (text := log.read()):
                errors.print(Text.from_ansi(text), soft_wrap=True)
            if running:
                time.sleep(0.1)
    return seen


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End what is left of the process group: politely, then not."""
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            deadline = time.monotonic() + SECONDS_TO_STOP
            while time.monotonic() < deadline:
                process.poll()  # reap it: a zombie would keep the group alive
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    except ProcessLookupError:
        return  # no one is left
