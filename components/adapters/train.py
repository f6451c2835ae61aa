"""The step `train`: one adapter on the datasets of a group (or of a baseline), and its logits."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.adapter_log import record_adapter
from components.artifacts import Artifact, digest_of, file_digest
from components.base_model import model_inputs
from components.inputs import START, Prepared, outputs_digest, read_datasets
from components.label_logits import obtain_logits
from components.sampling import feature_index
from components.step import Step, read_references

if TYPE_CHECKING:
    from components.on_demand import OnDemand

CURVE = "curve.json"


def run(config: str, run_name: str, context: str, datasets: Path, start: Path, job: str, adapter: Path) -> None:
    """Train the adapter of ``job`` (``{"name", "datasets"}`` as JSON) from theta*.

    Passed on: ``adapter/<name>`` and its logits on the validation and test splits: a group's of every dataset, because
    any of them may give it weight, a baseline's of its own datasets. A group's logits on its own datasets' training
    rows, those that features were taken of, are what boosters are fitted to.
    """
    from components.on_demand import OnDemand

    task = json.loads(job)
    with Step("train", config, run_name, part=task["name"]) as step:
        prepared = read_datasets(step, read_references(datasets))
        theta = step.load(read_references(start), START)
        work = OnDemand(step)
        label = f"adapter/{task['name']}"
        trained = step.obtain(
            label,
            "adapter",
            inputs_of(step, prepared, theta, task["datasets"]),
            lambda folder: _train(step, work, prepared, theta, task["datasets"], folder),
        )
        step.facts = {"datasets": task["datasets"], "flops": trained.facts["flops"], "curve": trained.facts["curve"]}
        step.facts["mlflow"] = record_adapter(
            step,
            context,
            name=task["name"],
            kind="adapter",
            artifact=trained,
            curve=trained.facts["curve"],
            datasets=task["datasets"],
            prepared=prepared,
        )
        _logits(step, work, prepared, trained, task)
        step.pass_on(adapter)


def inputs_of(step: Step, prepared: Prepared, theta: Artifact, names: list[str]) -> dict[str, Any]:
    """What an adapter is made of: the same inputs give the same adapter, whatever the group is called."""
    return {
        "model": model_inputs(step.config.model),
        "start": theta.digest,
        "datasets": {name: prepared.digests[name] for name in sorted(names)},
        "training": step.config.training.model_dump(),
        "seed": step.config.seed,
    }


def _train(
    step: Step, work: "OnDemand", prepared: Prepared, theta: Artifact, names: list[str], folder: Path
) -> dict[str, Any]:
    from components.adapters.distance import relative_distance
    from components.language_model import save_adapter
    from components.training import Material, Recipe, fit

    settings = step.config.training
    recipe = Recipe(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        seed=step.config.seed,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        size_exponent=settings.size_exponent,
        patience=settings.patience,
        gradient_checkpointing=settings.gradient_checkpointing,
    )
    # Sorted, so that the name of the group and the order of the config do not reach the weights.
    material = [
        Material(work.examples(prepared[name], "train"), work.examples(prepared[name], "validation"))
        for name in sorted(names)
    ]
    model = work.trainable(theta.folder)
    job = digest_of(inputs_of(step, prepared, theta, names))[:32]
    fitted = fit(model, work.base, material, recipe, step.store, job, step.progress)
    save_adapter(model, folder, work.base)
    (folder / CURVE).write_text(json.dumps(fitted.curve, indent=1))
    flops = work.cost(model).training(fitted.tokens, fitted.squared)
    step.flops += flops
    return {
        "datasets": sorted(names),
        "curve": fitted.curve,
        "flops": flops,
        "tokens": fitted.tokens,
        "distance": relative_distance(folder, theta.folder, work.base),
    }


def _logits(step: Step, work: "OnDemand", prepared: Prepared, trained: Artifact, task: dict[str, Any]) -> None:
    outputs = outputs_digest(step, weights_digest(trained))
    is_group = task["name"].startswith("group-")
    for done, dataset in enumerate(prepared.datasets):
        own = dataset.name in task["datasets"]
        for split in ("validation", "test") if is_group or own else ():
            compute = work.logits(trained.folder, dataset, split)
            obtain_logits(step, outputs, dataset, split, compute, model=task["name"])
        step.progress(done + 1, len(prepared.datasets), f"logits of {dataset.name}")
        if is_group and own:
            compute, sampled = (
                work.logits(trained.folder, dataset, "train"),
                feature_index(step.config, dataset, "train"),
            )
            obtain_logits(step, outputs, dataset, "train", compute, model=task["name"], index=sampled)


def weights_digest(adapter: Artifact) -> str:
    """sha256 of an adapter's weights alone: its curve does not change what it answers."""
    return file_digest(adapter.folder / "adapter_model.safetensors")
