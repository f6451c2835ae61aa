"""The step `fine_tune`: adapters trained only to see what a subset of the datasets reaches, one a seed.

They are trained as a group's adapter is and found again by the same key, so a subset which is a group costs nothing
more. What is kept of each is a *trial*: its losses and accuracies on the validation and test rows of its own datasets.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.adapters.train import obtain_adapter
from components.artifacts import Artifact
from components.inputs import START, Prepared, outputs_digest, read_datasets, weights_digest
from components.prepared import PreparedDataset, SplitName
from components.step import Step, read_references
from components.tables import row_losses
from components.trials import trial_label

if TYPE_CHECKING:
    from components.on_demand import OnDemand

MEASURED: tuple[SplitName, ...] = ("validation", "test")


def run(config: str, run_name: str, datasets: Path, start: Path, job: str, trials: Path) -> None:
    """Fine-tune the subset of ``job`` (``{"name", "datasets", "seeds"}`` as JSON) from theta*, once a seed.

    Passed on: ``trial/<name>/<seed>`` (see ``components/trials.py``), and the adapters.
    """
    from components.on_demand import OnDemand

    task = json.loads(job)
    with Step("fine_tune", config, run_name, part=task["name"]) as step:
        prepared = read_datasets(step, read_references(datasets))
        theta = step.load(read_references(start), START)
        for done, seed in enumerate(task["seeds"]):
            work = OnDemand(step)  # a base without the adapter before
            name = f"{task['name']}.{seed}"
            adapter = obtain_adapter(step, config, work, prepared, theta, name, task["datasets"], seed)
            _obtain_trial(step, work, prepared, adapter, task, seed)
            step.progress(done + 1, len(task["seeds"]), f"seed {seed}")
        step.facts = {"datasets": task["datasets"], "seeds": task["seeds"]}
        step.pass_on(trials)


def _obtain_trial(
    step: Step, work: "OnDemand", prepared: Prepared, adapter: Artifact, task: dict[str, Any], seed: int
) -> None:
    names: list[str] = task["datasets"]
    inputs = {
        "outputs": outputs_digest(step, weights_digest(adapter)),
        "datasets": {name: prepared.digests[name] for name in names},
    }
    label = trial_label(task["name"], seed)
    step.obtain(label, "trial", inputs, lambda _: _measured(work, adapter, [prepared[name] for name in names]))


def _measured(work: "OnDemand", adapter: Artifact, datasets: Sequence[PreparedDataset]) -> dict[str, Any]:
    facts: dict[str, Any] = {"loss": {}, "accuracy": {}}
    for split in MEASURED:
        results = {dataset.name: _result(work, adapter, dataset, split) for dataset in datasets}
        facts["loss"][split] = {name: loss for name, (loss, _) in results.items()}
        facts["accuracy"][split] = {name: right for name, (_, right) in results.items()}
    known = {key: adapter.facts[key] for key in ("flops", "distance")}
    return {**facts, **known, "seconds": adapter.seconds}


def _result(work: "OnDemand", adapter: Artifact, dataset: PreparedDataset, split: SplitName) -> tuple[float, float]:
    """Mean cross-entropy (nats) and share of right answers on one split."""
    rows = dataset.splits[split]
    label = np.ones(len(rows.row), np.int64) if dataset.completion else rows.label
    logits = work.logits(adapter.folder, dataset, split)(np.arange(len(label)))
    return float(row_losses(logits, label).mean()), float((logits.argmax(axis=1) == label).mean())
