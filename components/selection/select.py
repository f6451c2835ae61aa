"""The step `select`: which datasets to train along with the target, by the surrogate; and jobs that would check it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts import Artifact
from components.errors import UserError
from components.group_estimator import estimated_from, group_estimator
from components.inputs import Prepared, features_of, read_datasets
from components.step import Step, read_references
from components.trials import seeds_of

CHOSEN, ALL, NONE = "chosen", "all", "none"


def run(config: str, run_name: str, datasets: Path, features: list[Path], selection: Path) -> list[str]:
    """Rank the datasets for ``selection.target`` and pass the ``selection`` on.

    Returns:
        The jobs for `fine_tune`: the target with the chosen ones, with all, with none, each subset once.

    Raises:
        UserError: no target, or one that has no company.
    """
    with Step("select", config, run_name) as step:
        settings, names = step.config.selection, list(read_references(datasets))
        if settings.target not in names or len(names) < 2:
            raise UserError(
                f"selection.target is {settings.target}; there are {', '.join(names)}",
                remedy="loraloom select --target NAME, with at least two datasets in the config",
            )
        prepared = read_datasets(step, read_references(datasets))
        found = features_of(step, read_references(features), names)
        inputs = {
            **estimated_from(step.config, prepared.digests, found),
            "target": settings.target,
            "subsets": settings.subsets,
        }
        facts = step.obtain("selection", "selection", inputs, lambda _: _selected(step, prepared, found)).facts
        step.facts = {"selection": facts}
        step.pass_on(selection)
        seeds = seeds_of(step.config.seed, settings.seeds)
        return [json.dumps({"name": name, "datasets": inside, "seeds": seeds}) for name, inside in jobs(facts).items()]


def jobs(facts: dict[str, Any]) -> dict[str, list[str]]:
    """The sets to fine-tune by the name of their job: where two are the same, only the first."""
    target, others = facts["target"], [name for name in facts["datasets"] if name != facts["target"]]
    wanted = {NONE: [target], CHOSEN: [target, *facts["chosen"]], ALL: [target, *others]}
    found: dict[str, list[str]] = {}
    for name, inside in wanted.items():
        ordered = [dataset for dataset in facts["datasets"] if dataset in inside]
        if ordered not in found.values():
            found[name] = ordered
    return found


def _selected(step: Step, prepared: Prepared, found: dict[str, Artifact]) -> dict[str, Any]:
    # Bring torch, which a step that is reused does without.
    from components.selection.forward import forward_selection, leave_one_out
    from components.selection.scores import random_scores

    settings, names, seed = step.config.selection, prepared.names, step.config.seed
    estimator = group_estimator(step.config, prepared, found)
    target = names.index(str(settings.target))
    order = forward_selection(estimator, target, names)
    scores = random_scores(estimator, target, names, subsets=settings.subsets, seed=seed)
    everything = estimator.solve(np.ones((1, len(names)), dtype=bool)).loss[0, 0, target]
    step.flops += estimator.flops
    return {
        "target": settings.target,
        "datasets": names,
        "alone": order.alone,
        "order": [asdict(addition) for addition in order.additions],
        "stop": order.stop,
        "chosen": order.chosen,
        "everything": float(everything),
        "leave_one_out": {name: asdict(one) for name, one in leave_one_out(estimator, target, names).items()},
        "scores": {name: asdict(one) for name, one in scores.items()},
        "subsets": settings.subsets,
    }
