"""Runs the tiny pipeline in a process that is killed (SIGKILL) at a chosen moment; production code knows nothing of it.

A moment is the n-th change that a step makes to the store or to MLflow, the two places that outlive a process. At an
odd change only half of the file gets written (or the request is not sent), at an even one the process dies right after
it. Where the step makes fewer changes, the process dies as the next step begins. The children are forked from a server
that has imported everything, so that a run costs its work and not ten seconds of imports.
"""

import functools
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STORE = ("write", "create", "upload", "delete")
MLFLOW = (
    "create_experiment create_run update_run set_tag set_terminated log_batch log_dict log_artifact log_artifacts "
    "log_inputs log_outputs create_registered_model create_model_version set_model_version_tag "
    "delete_model_version_tag set_registered_model_alias create_logged_model log_model_artifacts finalize_logged_model"
).split()
IMPORTED = [
    "torch", "transformers.models.llama.modeling_llama", "peft", "mlflow.pyfunc", "sqlalchemy", "sklearn.linear_model",
    "components.training", "components.gradients.shards", "components.estimator", "components.partition.plan",
    "components.adapters.booster_fit", "components.registry.register", "components.ensemble.report",
    "components.serving.predict", "pipelines.summary",
]  # fmt: skip
AGAIN = "again.txt"  # keys that were made although they were there


@dataclass(frozen=True)
class Moment:
    """The ``number``-th change that ``step`` makes, from 1."""

    step: str
    number: int


@dataclass(frozen=True)
class Outcome:
    """How a run ended: whether its step was over when it was killed, the summary of one that was not, its log's end."""

    exit_code: int | None
    passed: bool
    summary: dict[str, Any]
    log: str


class Run:
    """A run of the pipeline in a child of its own, from its start on."""

    def __init__(
        self, config: Path, root: Path, moment: Moment | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        for name in ("passed", "summary"):
            (root / name).unlink(missing_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self.child = context.Process(target=_child, args=(config, root, moment, dict(environment or {})))
        self.child.start()

    def wait(self, seconds: float | None = None) -> Outcome:
        """How it ended; killed after ``seconds``, wherever it is then."""
        self.child.join(seconds)
        if self.child.is_alive():
            self.child.kill()
        self.child.join()
        summary, passed = self.root / "summary", (self.root / "passed").is_file()
        found = json.loads(summary.read_text()) if summary.is_file() else {}
        return Outcome(self.child.exitcode, passed, found, (self.root / "child.log").read_text()[-3000:])


def run_once(
    config: Path,
    root: Path,
    moment: Moment | None,
    seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run the pipeline once; ``seconds``: kill it after so long, wherever it is."""
    return Run(config, root, moment, environment).wait(seconds)


def _child(config: Path, root: Path, moment: Moment | None, environment: dict[str, str]) -> None:
    log = os.open(root / "child.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update({"LORALOOM_EVENTS": str(root / "events.jsonl"), **environment})
    tempfile.tempdir = None  # the server that this process was forked from may have looked for another
    from tests.e2e.in_process import run_steps

    _watch(root, moment)
    summary = run_steps(config, root)
    (root / "summary").write_text(json.dumps(summary))
    sys.stdout.flush()


def _watch(root: Path, moment: Moment | None) -> None:
    """Count the changes of the step at work, and die at the chosen one."""
    from mlflow import MlflowClient

    from components.object_store import LocalStore
    from components.step import Step

    at_work = [""]
    count, begun = [0], set[str]()
    enter = Step.__enter__

    def begin(step: Step) -> Step:
        if moment is not None and moment.step in begun and step.name != moment.step:
            (root / "passed").touch()
            _die()
        begun.add(step.name)
        at_work[0] = step.name
        return enter(step)

    def watched(method: Callable[..., Any], spoil: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def changed(*args: Any, **kwargs: Any) -> Any:
            if moment is None or at_work[0] != moment.step:
                return method(*args, **kwargs)
            count[0] += 1
            if count[0] == moment.number and count[0] % 2:
                spoil(*args)
                _die()
            result = method(*args, **kwargs)
            if count[0] == moment.number:
                _die()
            return result

        return changed

    Step.__enter__ = begin  # type: ignore[method-assign]
    LocalStore.create = _noting(LocalStore.create, root)  # type: ignore[method-assign]
    for name in STORE:
        setattr(LocalStore, name, watched(getattr(LocalStore, name), _half))
    for name in MLFLOW:
        setattr(MlflowClient, name, watched(getattr(MlflowClient, name), lambda *_: None))


def _noting(create: Callable[..., None], root: Path) -> Callable[..., None]:
    """``create`` that writes down every key it is asked for a second time: finished work that was done again."""

    def noting(store: Any, key: str, data: bytes) -> None:
        if store.exists(key):
            with (root / AGAIN).open("a") as file:
                file.write(f"{key}\n")
        create(store, key, data)

    return noting


def _half(store: Any, *change: Any) -> None:
    """Half of what a change to the store would write, as a process leaves it that is killed meanwhile."""
    if len(change) < 2:
        return  # a deletion is whole or has not happened
    key, content = change if isinstance(change[1], bytes) else (change[1], Path(change[0]).read_bytes())
    target = store._path(key)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name("killed.part").write_bytes(content[: len(content) // 2])


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
