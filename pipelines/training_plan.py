"""What training will cost, from what the steps before it measured on this very model and machine."""

import json
import math
from dataclasses import dataclass
from typing import Any

from components.config import RunConfig
from components.partition.run import jobs


@dataclass(frozen=True)
class PlannedAdapter:
    """One adapter to train.

    Attributes:
        name: group or baseline.
        rows: training rows an epoch.
        steps: optimizer steps at most; early stopping may end it before.
    """

    name: str
    datasets: tuple[str, ...]
    rows: int
    steps: int


@dataclass(frozen=True)
class TrainingPlan:
    """Everything `train` will do.

    Attributes:
        adapters: groups first, then the baselines asked for.
        flops: of all of them, epochs included; None where no warm start measured the FLOPs of a row.
        memory_bytes: the warm start's peak, of the run that made theta*: the same batches through the same model.
    """

    adapters: tuple[PlannedAdapter, ...]
    flops: float | None
    memory_bytes: int | None

    @property
    def steps(self) -> int:
        """Optimizer steps of all adapters together."""
        return sum(adapter.steps for adapter in self.adapters)


def training_plan(config: RunConfig, summary: dict[str, Any]) -> TrainingPlan:
    """The adapters that the groups in ``summary`` call for, and their cost."""
    rows = {dataset["name"]: dataset["rows"]["train"] for dataset in summary["datasets"]}
    planned = [json.loads(job) for job in jobs(summary["groups"], list(rows), config.ensemble.baselines)]
    adapters = tuple(_adapter(job["name"], tuple(job["datasets"]), rows, config) for job in planned)
    warm = summary["cost"]["warm_start"]
    total = sum(adapter.rows for adapter in adapters) * config.training.epochs
    flops = warm["flops"] / warm["rows"] * total if warm["rows"] else None  # forward and backward, a row
    return TrainingPlan(adapters, flops, warm["peak_memory_bytes"])


def _adapter(name: str, datasets: tuple[str, ...], rows: dict[str, int], config: RunConfig) -> PlannedAdapter:
    count = sum(rows[dataset] for dataset in datasets)
    steps = math.ceil(count * config.training.epochs / config.training.batch_size)
    return PlannedAdapter(name, datasets, count, steps)
