"""The pipelines of these studies in one process, step by step: what kfp adds costs as much as a small fine-tune.

Every step is the product's; what it makes is found again by content, whichever way it was run.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any, Literal

from components.adapters import fine_tune
from components.config import RunConfig
from components.config_file import resolved
from components.config_transport import pack
from components.data import run as prepare
from components.gradients import extract, linearity, warm_start
from components.object_store import open_store
from components.partition import run as partition
from components.registry import close_run, open_run
from components.selection import confirm, select
from components.step import write_references
from components.summary import assemble
from components.surrogate import estimate
from components.validation import judge, sample

Until = Literal["partition", "linearity", "judge", "confirm"]


class Steps:
    """One run of the steps.

    Args:
        config: as a dictionary.
        root: of store and MLflow.
        truth: the store's keys of an earlier run whose fine-tunes the estimates are judged by; without, its own.
    """

    def __init__(self, config: dict[str, Any], root: Path, truth: dict[str, str] | None = None) -> None:
        self.truth = truth
        self.config = resolved(RunConfig.model_validate(config), root)
        self.store = open_store(self.config.storage, root / "store")
        self.run = pack(self.config), f"{self.config.name}-{time.time_ns()}"
        self.folder = root / "references" / self.run[1]

    def until(self, last: Until) -> dict[str, Any]:
        """Run to the end of a step; the summary."""
        self.folder.mkdir(parents=True)
        context = open_run.run(*self.run)
        try:
            shards = prepare.run(*self.run, self.at("datasets"))
            warm_start.run(*self.run, context, self.at("datasets"), self.at("start"))
            for k, shard in enumerate(shards):
                extract.run(*self.run, self.at("datasets"), self.at("start"), shard, self.at(f"features-{k}"))
            self.features = [self.at(f"features-{k}") for k in range(len(shards))]
            self._confirm(context) if last == "confirm" else self._plan(context)
            if last in ("linearity", "judge"):
                found = [self.at("start"), self.features, self.at("groups"), self.at("linear")]
                linearity.run(*self.run, self.at("datasets"), *found)
            if last == "judge":
                self._judge(context)
        finally:
            close_run.run(*self.run, last)
        return assemble(self.store, self.run[1], self.config)

    def at(self, name: str) -> Path:
        """The file of references that a step passes on under ``name``."""
        return self.folder / name

    def _plan(self, context: str) -> None:
        parts = self.at("datasets"), self.features, self.at("estimates")
        estimate.run(*self.run, *parts)
        partition.run(*self.run, context, *parts, self.at("groups"))

    def _judge(self, context: str) -> None:
        planned = self.at("estimates"), self.at("groups")
        if self.truth is None:
            trials = self._tuned(sample.run(*self.run, self.at("datasets"), *planned, self.at("sample")))
        else:
            trials = [self.at("trials")]
            write_references(self.at("sample"), {"sample": self.truth["sample"]})
            write_references(trials[0], {label: key for label, key in self.truth.items() if label.startswith("trial/")})
        before = self.at("datasets"), self.at("start"), self.features
        after = self.at("estimates"), self.at("sample"), self.at("linear")
        judge.run(*self.run, context, *before, *after, trials, self.at("judgement"), self.at("report.html"))

    def _confirm(self, context: str) -> None:
        trials = self._tuned(select.run(*self.run, self.at("datasets"), self.features, self.at("selection")))
        confirm.run(*self.run, context, self.at("datasets"), self.at("selection"), trials)

    def _tuned(self, jobs: list[str]) -> list[Path]:
        """Fine-tune the jobs one after the other."""
        paths = [self.at(f"trials-{json.loads(job)['name']}") for job in jobs]
        for job, path in zip(jobs, paths, strict=True):
            fine_tune.run(*self.run, self.at("datasets"), self.at("start"), job, path)
        return paths


def run_until(
    config: dict[str, Any], root: Path, last: Until, truth: dict[str, str] | None = None
) -> tuple[dict[str, Any], float]:
    """Run the steps (see :class:`Steps`) to the end of ``last``; the summary, and the wall clock in seconds."""
    started = time.monotonic()
    steps = Steps(config, root.resolve(), truth)
    summary = steps.until(last)
    shutil.rmtree(steps.folder)
    return summary, time.monotonic() - started
