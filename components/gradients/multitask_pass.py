"""A brief pass over a sample of every dataset together: what makes theta*, and what looks ahead from it."""

from typing import TYPE_CHECKING, Any

from components.config import RunConfig
from components.prepared import PreparedDataset
from components.sampling import sample_rows
from components.step import Step

if TYPE_CHECKING:
    from peft import PeftModel

    from components.inputs import Prepared
    from components.on_demand import OnDemand
    from components.training import Material


def pass_settings(config: RunConfig) -> dict[str, Any]:
    """How a pass trains besides its length and rows, by the names of ``components.training.Recipe``."""
    training = config.training
    return {
        "learning_rate": config.warm_start.learning_rate or training.learning_rate,
        "batch_size": training.batch_size,
        "warmup_ratio": training.warmup_ratio,
        "seed": config.seed,
    }


def multitask_pass(
    step: Step, prepared: "Prepared", work: "OnDemand", model: "PeftModel", epochs: float, seed: int, job: str
) -> dict[str, Any]:
    """Train the adapter in place with the warm start's settings.

    Args:
        epochs: more than 0, over at most ``warm_start.samples_per_dataset`` rows a dataset.
        seed: of the order of batches.
        job: names the checkpoints.

    Returns:
        Facts of the artifact that is made of it: ``curve``, ``flops``, ``rows`` gone through.
    """
    from components.training import Recipe, fit

    settings = step.config.warm_start
    material = [_sample(step, dataset, work) for dataset in prepared.datasets]
    recipe = Recipe(
        epochs=epochs,
        learning_rate_setting=f"{'warm_start' if settings.learning_rate else 'training'}.learning_rate",
        **(pass_settings(step.config) | {"seed": seed}),
    )
    fitted = fit(model, work.base, material, recipe, step.store, job, step.progress, say=step.say)
    flops = work.cost(model).training(fitted.tokens, fitted.squared)
    step.flops += flops
    return {"curve": fitted.curve, "flops": flops, "rows": epochs * sum(len(part.train) for part in material)}


def _sample(step: Step, dataset: PreparedDataset, work: "OnDemand") -> "Material":
    from components.training import Material

    examples = work.examples(dataset, "train")
    chosen = sample_rows(examples.row, step.config.warm_start.samples_per_dataset, step.config.seed)
    return Material(examples.take(chosen), work.examples(dataset, "validation"))
