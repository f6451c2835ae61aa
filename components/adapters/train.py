"""The step `train`: one adapter on the datasets of a group (or of a baseline), and its logits."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.adapter_log import record_adapter
from components.adapters.task import Task, collect, delivered, discard
from components.artifacts import Artifact, digest_of
from components.base_model import model_inputs
from components.cluster_config import StepResources
from components.inputs import START, Prepared, outputs_digest, read_datasets, weights_digest
from components.label_logits import obtain_logits
from components.members import is_group, is_member
from components.sampling import feature_index
from components.step import Step, read_references

if TYPE_CHECKING:
    from components.on_demand import OnDemand


def run(config: str, run_name: str, context: str, datasets: Path, start: Path, job: str, adapter: Path) -> None:
    """Train the adapter of ``job`` (``{"name", "datasets"}`` as JSON) from theta*.

    Passed on: ``adapter/<name>`` and its logits on the validation and test splits: a member's of every dataset, because
    any of them may give it weight, another baseline's of its own datasets. A group's logits on its own datasets'
    training rows, those that features were taken of, are what boosters are fitted to.
    """
    from components.on_demand import OnDemand

    task = json.loads(job)
    with Step("train", config, run_name, part=task["name"]) as step:
        prepared = read_datasets(step, read_references(datasets))
        theta = step.load(read_references(start), START)
        work = OnDemand(step)
        trained = obtain_adapter(step, config, work, prepared, theta, task["name"], task["datasets"], step.config.seed)
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


def obtain_adapter(
    step: Step,
    config: str,
    work: "OnDemand",
    prepared: Prepared,
    theta: Artifact,
    name: str,
    datasets: list[str],
    seed: int,
) -> Artifact:
    """The adapter trained on ``datasets`` from theta*, from the store if it is there; passed on as ``adapter/<name>``.

    Args:
        config: as it came to the step.
        work: with no adapter loaded yet.
    """
    inputs = inputs_of(step, prepared, theta, datasets, seed)
    order = Task(config, step.run_name, name, datasets, prepared.keys, theta.key, seed, digest_of(inputs)[:32])
    trained = step.obtain(
        f"adapter/{name}", "adapter", inputs, lambda folder: _train(step, work, prepared, theta, order, folder)
    )
    discard(step.store, order)
    return trained


def inputs_of(step: Step, prepared: Prepared, theta: Artifact, names: list[str], seed: int) -> dict[str, Any]:
    """What an adapter is made of: the same inputs give the same adapter, whatever the group is called."""
    return {
        "model": model_inputs(step.config.model),
        "start": theta.digest,
        "datasets": {name: prepared.digests[name] for name in sorted(names)},
        "training": step.config.training.model_dump(),
        "seed": seed,
    }


def _train(
    step: Step, work: "OnDemand", prepared: Prepared, theta: Artifact, order: Task, folder: Path
) -> dict[str, Any]:
    from components.adapters.fit_adapter import fit_adapter
    from components.distance import relative_distance

    if delivered(step.store, order) or _trained_elsewhere(step, order):
        facts = collect(step.store, order, folder)
    else:
        facts = fit_adapter(step, work, prepared, theta.folder, order, folder)
    step.flops += facts["flops"]
    return {**facts, "distance": relative_distance(folder, theta.folder, work.base)}


def _trained_elsewhere(step: Step, order: Task) -> bool:
    """Whether the resources asked for other processes, which have then trained and delivered."""
    asked = step.config.resources.get("train", StepResources())
    if asked.nodes > 1:
        from components.adapters.cluster_job import in_cluster, train_on_nodes

        if in_cluster():
            train_on_nodes(step, order)
            return True
        step.say(f"resources.train.nodes is {asked.nodes}, but this is no pod of a cluster: this machine trains")
    if asked.gpus > 1:
        from components.adapters.launch import processes, train_in_processes

        if (count := processes(step, asked.gpus)) > 1:
            train_in_processes(step, order, count)
            return True
    return False


def _logits(step: Step, work: "OnDemand", prepared: Prepared, trained: Artifact, task: dict[str, Any]) -> None:
    outputs = outputs_digest(step, weights_digest(trained))
    for done, dataset in enumerate(prepared.datasets):
        own = dataset.name in task["datasets"]
        for split in ("validation", "test") if is_member(task["name"]) or own else ():
            compute = work.logits(trained.folder, dataset, split)
            obtain_logits(step, outputs, dataset, split, compute, model=task["name"])
        step.progress(done + 1, len(prepared.datasets), f"logits of {dataset.name}")
        if is_group(task["name"]) and own:
            compute, sampled = (
                work.logits(trained.folder, dataset, "train"),
                feature_index(step.config, dataset, "train"),
            )
            obtain_logits(step, outputs, dataset, "train", compute, model=task["name"], index=sampled)
