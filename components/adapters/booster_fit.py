"""Fit one booster: a step made from stored features (`linear`), or a short fine-tune (`trained`)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from peft import PeftModel

from components.adapters.boosting import dual_coefficients, margin_of, residuals
from components.artifacts import Artifact
from components.inputs import Prepared
from components.language_model import save_adapter
from components.on_demand import OnDemand
from components.step import Step
from components.tables import read_features
from components.training import Material, Recipe, fit
from components.weighted_step import step_along

if TYPE_CHECKING:
    from components.adapters.boost import Group


def fit_booster(
    step: Step, work: OnDemand, prepared: Prepared, theta: Artifact, group: "Group", job: str, folder: Path
) -> dict[str, Any]:
    """Write the booster's PEFT folder; returns its facts (method, curve, flops).

    Args:
        job: names the checkpoints of a trained booster; of everything that it is made from.
    """
    if step.config.boosting.method == "linear":
        model, facts = _linear(step, work, prepared, theta, group)
    else:
        model, facts = _trained(step, work, prepared, theta, group, job)
    save_adapter(model, folder, work.base)
    step.flops += facts["flops"]
    return {"method": step.config.boosting.method, "curve": [], **facts}


def _linear(
    step: Step, work: OnDemand, prepared: Prepared, theta: Artifact, group: "Group"
) -> tuple[PeftModel, dict[str, Any]]:
    """A step from theta*, along gradients taken there. Its coefficients are those of the features, which may have been
    taken ahead of theta*: an approximation, and rows that neither has seen judge whether the booster is kept.
    """
    tables = {name: read_features(group.features[name].folder, "train") for name in group.members}
    margin = [margin_of(group.logits[name, "train"], group.start[name, "train"].label) for name in group.members]
    coefficients, ridge = dual_coefficients(
        np.concatenate([tables[name].features for name in group.members]),
        residuals(np.concatenate(margin)),
        np.concatenate([np.full(len(rows), 1 / len(rows)) for rows in margin]),
        step.config.seed,
    )
    examples = [work.examples(prepared[name], "train", tables[name].row) for name in group.members]
    model = work.trainable(theta.folder)
    parts = np.split(coefficients, np.cumsum([len(rows) for rows in margin])[:-1])
    step_along(model, work.base, examples, parts, step.config.gradients.batch_tokens)
    return model, {"ridge": ridge, "flops": work.cost(model).training(*work.spent(examples))}


def _trained(
    step: Step, work: OnDemand, prepared: Prepared, theta: Artifact, group: "Group", job: str
) -> tuple[PeftModel, dict[str, Any]]:
    """One epoch from theta* with what the group adds already as offset, on the rows features were taken of.

    No early stopping: the validation rows are to judge the booster afterwards, so they must not have shaped it.
    """
    settings = step.config.training
    material = []
    for name in group.members:
        table = group.start[name, "train"]
        offset = (group.logits[name, "train"] - table.logits).astype(np.float32)
        validation = work.examples(prepared[name], "validation")
        material.append(Material(work.examples(prepared[name], "train", table.row), validation, offset))
    recipe = Recipe(
        epochs=1,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        seed=step.config.seed,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
    )
    model = work.trainable(theta.folder)
    fitted = fit(model, work.base, material, recipe, step.store, job, step.progress, say=step.say)
    return model, {"curve": fitted.curve, "flops": work.cost(model).training(fitted.tokens, fitted.squared)}
