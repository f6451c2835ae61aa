"""Train one adapter from theta*: in the step itself, or in each of the processes it starts for that."""

import json
from pathlib import Path
from typing import Any

from components import parallel
from components.adapters.task import Task
from components.cluster_config import StepResources
from components.inputs import Prepared
from components.language_model import save_adapter
from components.on_demand import OnDemand
from components.step import Step
from components.training import Material, Recipe, fit

CURVE = "curve.json"


def fit_adapter(
    step: Step, work: OnDemand, prepared: Prepared, theta: Path, task: Task, folder: Path
) -> dict[str, Any]:
    """Train on the task's datasets; the first process writes the adapter and its curve to ``folder``.

    Args:
        theta: PEFT folder to begin from.

    Returns:
        What was found out on the way: curve, FLOPs, tokens.
    """
    settings = step.config.training
    recipe = Recipe(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        seed=task.seed,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        size_exponent=settings.size_exponent,
        patience=settings.patience,
        gradient_checkpointing=settings.gradient_checkpointing,
    )
    # Sorted, so that the name of the group and the order of the config do not reach the weights.
    material = [
        Material(work.examples(prepared[name], "train"), work.examples(prepared[name], "validation"))
        for name in sorted(task.datasets)
    ]
    model = work.trainable(theta)
    cost = work.cost(model)
    asked = step.config.resources.get("train", StepResources())
    shard_base = parallel.size() > 1 and asked.sharding == "fsdp"
    fitted = fit(
        model, work.base, material, recipe, step.store, task.job, step.progress, shard_base=shard_base, say=step.say
    )
    if parallel.rank() == 0:
        save_adapter(model, folder, work.base)
        (folder / CURVE).write_text(json.dumps(fitted.curve, indent=1))
    return {
        "datasets": sorted(task.datasets),
        "curve": fitted.curve,
        "flops": cost.training(fitted.tokens, fitted.squared),
        "tokens": fitted.tokens,
    }
