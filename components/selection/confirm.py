"""The step `confirm`: what the chosen set, all datasets, and the target alone really reach."""

import json
from pathlib import Path
from typing import Any

from components import tracking
from components.inputs import read_datasets
from components.selection.select import ALL, CHOSEN, NONE, jobs
from components.step import Step, read_references
from components.trials import Trials, read_trials


def run(
    config: str, run_name: str, context: str, datasets: Path, selection: Path, trials: list[Path]
) -> dict[str, float]:
    """Add the true results to the selection and tell MLflow.

    Returns:
        The target's mean test loss by set.
    """
    with Step("confirm", config, run_name) as step:
        prepared = read_datasets(step, read_references(datasets))
        facts = step.load(read_references(selection), "selection").facts
        tuned = jobs(facts)
        real = read_trials(step, read_references(trials), prepared.names, tuned, step.config.selection.seeds)
        target = prepared.names.index(facts["target"])
        measured = {name: _result(real, k, target) for k, name in enumerate(tuned)}
        for name in (CHOSEN, ALL):  # nothing chosen, or everything: the set stands under its first name
            measured.setdefault(name, measured[NONE if not facts["chosen"] else CHOSEN])
        step.facts = {"selection": {**facts, "confirmed": measured, "seeds": real.seeds}}
        numbers = {f"selection.{name}.test_loss": one["test"]["mean"] for name, one in measured.items()}
        client, run_id = tracking.connect(str(step.config.tracking.uri)), json.loads(context)["run_id"]
        tracking.log_metrics(client, run_id, numbers)
        client.log_dict(run_id, step.facts["selection"], "selection.json")
        return numbers


def _result(trials: Trials, k: int, target: int) -> dict[str, Any]:
    """The target's results over seeds: mean and standard deviation."""
    tables = {"validation": trials.validation, "test": trials.test, "accuracy": trials.accuracy}
    found = {}
    for name, table in tables.items():
        values = table[k, :, target]
        found[name] = {"mean": float(values.mean()), "spread": float(values.std(ddof=1))}
    return found
