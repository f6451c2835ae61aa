"""The pipeline's steps in its order, in this process: a fifth of the CPU time of a process for every step.

What kfp adds (processes, fan-outs, the branch that ends a run early) is in ``test_run.py``, on the same steps.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components import alerts
from components.adapters import boost, train
from components.config_file import read_config, resolved
from components.config_transport import pack
from components.data import run as prepare
from components.ensemble import evaluate, weigh
from components.gradients import extract, warm_start
from components.partition import run as partition
from components.registry import changes, close_run, open_run, steps
from components.serving import servable
from components.surrogate import estimate
from pipelines.summary import collect
from tests.listener import Listener, listening


@contextmanager
def told_to_a_listener(events: Path) -> Iterator[Listener]:
    """Steps of this process tell their alerts to a listener, without long pauses, and their events to a file."""
    with pytest.MonkeyPatch.context() as patch, listening() as listener:
        patch.setenv("LORALOOM_WEBHOOK", listener.url)
        patch.setenv("LORALOOM_EVENTS", str(events))
        patch.setattr(alerts, "PAUSE", 0.001)
        yield listener


def run_steps(config_file: Path, root: Path) -> dict[str, Any]:
    """Run the pipeline; returns the summary, and leaves it and the report under ``root``."""
    config = resolved(read_config(config_file), root)
    root.mkdir(exist_ok=True)
    run = (pack(config), f"{config.name}-{time.time_ns()}")
    data, start, affinity, groups, weights, served, result = (root / run[1] / name for name in "dsagwvr")

    def fan_out(name: str, count: int) -> list[Path]:
        return [root / run[1] / f"{name}-{k}" for k in range(count)]

    context = open_run.run(*run)
    shards = prepare.run(*run, data)
    if changes.run(*run, context, data) == "yes":
        warm_start.run(*run, context, data, start)
        features = fan_out("features", len(shards))
        for shard, path in zip(shards, features, strict=True):
            extract.run(*run, data, start, shard, path)
        estimate.run(*run, data, features, affinity)
        jobs = partition.run(*run, context, data, features, affinity, groups)
        adapters, boosters = fan_out("adapter", len(jobs)), fan_out("booster", len(jobs))
        for job, path in zip(jobs, adapters, strict=True):
            train.run(*run, context, data, start, job, path)
        for job, path in zip(jobs, boosters, strict=True):
            boost.run(*run, context, data, start, features, adapters, job, path)
        weigh.run(*run, data, groups, features, adapters, boosters, weights)
        servable.run(*run, data, start, groups, features, adapters, boosters, weights, served)
        evaluate.run(*run, context, data, groups, features, adapters, boosters, weights, result, root / "report.html")
        registered = steps.register(
            *run, context, data, start, affinity, groups, adapters, boosters, weights, served, result
        )
        steps.promote_step(*run, context, registered)
    close_run.run(*run, "promote")
    return collect(config, root, run[1])
