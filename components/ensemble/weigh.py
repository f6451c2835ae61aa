"""The step `weigh`: one row of weights and a temperature for every dataset."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.ensemble.weights import fit_weights
from components.ensemble_logits import member_logits, start_logits
from components.members import first_choice, members_of
from components.step import Step, read_references


def run(
    config: str,
    run_name: str,
    datasets: Path,
    partition: Path,
    features: list[Path],
    adapters: list[Path],
    boosters: list[Path],
    weights: Path,
) -> None:
    """Fit W and the temperatures on the validation logits and pass them on as ``weights``."""
    with Step("weigh", config, run_name) as step:
        names = list(read_references(datasets))
        references = read_references(features) | read_references(adapters) | read_references(boosters)
        groups: list[list[str]] = step.load(read_references(partition), "partition").facts["groups"]
        members = members_of(groups, step.config.ensemble.baselines)
        used = {
            label: key
            for label, key in references.items()
            if label.startswith("logits/") and label.endswith("/validation")
        }
        inputs = {
            "logits": dict(sorted(used.items())),
            "members": members,
            "shrinkage": step.config.boosting.shrinkage,
            "seed": step.config.seed,
        }
        step.obtain("weights", "weights", inputs, lambda folder: _write(step, references, names, members, folder))
        step.pass_on(weights)


def _write(
    step: Step, references: dict[str, str], names: list[str], members: dict[str, list[str]], folder: Path
) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    for done, name in enumerate(names):
        start = start_logits(step, references, name, "validation")
        logits = [member_logits(step, references, member, name, "validation") for member in members]
        first = list(members).index(first_choice(members, name))
        row = fit_weights(
            start.logits.astype(np.float64), np.stack(logits) - start.logits, start.label, first, step.config.seed
        )
        rows[name] = {
            "weights": row.weights.tolist(),
            "temperature": row.temperature,
            "strength": row.strength if np.isfinite(row.strength) else None,
            "loss_before": row.loss_before,
            "loss_after": row.loss_after,
        }
        step.progress(done + 1, len(names), name)
    (folder / "weights.json").write_text(json.dumps(rows, indent=1, sort_keys=True))
    return {"rows": rows, "members": list(members)}
