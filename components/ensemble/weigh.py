"""The step `weigh`: one row of weights and a temperature for every dataset."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.ensemble.weights import fit_weights
from components.ensemble_logits import group_logits, start_logits
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
        used = {
            label: key
            for label, key in references.items()
            if label.startswith("logits/") and label.endswith("/validation")
        }
        inputs = {
            "logits": dict(sorted(used.items())),
            "groups": groups,
            "shrinkage": step.config.boosting.shrinkage,
            "seed": step.config.seed,
        }
        step.obtain("weights", "weights", inputs, lambda folder: _write(step, references, names, groups, folder))
        step.pass_on(weights)


def _write(
    step: Step, references: dict[str, str], names: list[str], groups: list[list[str]], folder: Path
) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    for done, name in enumerate(names):
        start = start_logits(step, references, name, "validation")
        logits = [group_logits(step, references, f"group-{k}", name, "validation") for k in range(len(groups))]
        own = next(k for k, group in enumerate(groups) if name in group)
        row = fit_weights(
            start.logits.astype(np.float64), np.stack(logits) - start.logits, start.label, own, step.config.seed
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
    return {"rows": rows, "groups": [f"group-{k}" for k in range(len(groups))]}
