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
        memory_bytes: the warm start's peak: it takes the same batches through the same model.
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
    steps: list[dict[str, Any]] = summary["cost"]["steps"]
    warm = next((step for step in steps if step["step"] == "warm_start"), dict[str, Any]())
    # A reused warm start cost nothing now; what it cost when it was made is told apart.
    per_row = _flops_a_row(config, rows, summary["cost"].get("warm_start_flops") or warm.get("flops"))
    total = sum(adapter.rows for adapter in adapters) * config.training.epochs
    return TrainingPlan(adapters, per_row * total if per_row else None, warm.get("peak_memory_bytes"))


def _adapter(name: str, datasets: tuple[str, ...], rows: dict[str, int], config: RunConfig) -> PlannedAdapter:
    count = sum(rows[dataset] for dataset in datasets)
    steps = math.ceil(count * config.training.epochs / config.training.batch_size)
    return PlannedAdapter(name, datasets, count, steps)


def _flops_a_row(config: RunConfig, rows: dict[str, int], flops: float | None) -> float | None:
    """FLOPs of one row, forward and backward, as the warm start found them."""
    sampled = sum(min(count, config.warm_start.samples_per_dataset) for count in rows.values())
    seen = sampled * config.warm_start.epochs
    return flops / seen if flops and seen else None
