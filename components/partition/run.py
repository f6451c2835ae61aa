"""The step `partition`: the groups, why these, and the jobs that train them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from components.artifacts import Artifact
from components.group_estimator import estimated_from, group_estimator
from components.inputs import Prepared, features_of, read_datasets
from components.members import alone, members_of
from components.step import Step, read_references

TABLE = "estimates.safetensors"


def run(
    config: str, run_name: str, context: str, datasets: Path, features: list[Path], estimates: Path, partition: Path
) -> list[str]:
    """Choose the partition and pass it on as ``partition``.

    Args:
        context: what `open_run` passed on; the champion's groups are in it.

    Returns:
        The training jobs, one JSON object a string: ``{"name": ..., "datasets": [...]}``; groups first, then the
        baselines asked for.
    """
    with Step("partition", config, run_name) as step:
        prepared = read_datasets(step, read_references(datasets))
        found = features_of(step, read_references(features), prepared.names)
        affinity = step.load(read_references(estimates), "affinity")
        previous = json.loads(context)["champion"].get("groups")
        inputs = {
            **estimated_from(step.config, prepared.digests, found),
            "affinity": affinity.digest,
            "partition": step.config.partition.model_dump(),
            "previous": previous,
        }
        artifact = step.obtain(
            "partition", "partition", inputs, lambda folder: _write(step, prepared, found, affinity, previous, folder)
        )
        groups: list[list[str]] = artifact.facts["groups"]
        for i, group in enumerate(groups):
            step.say(f"group-{i}: {', '.join(group)}")
        if not artifact.facts["complete"]:
            scored = artifact.facts["scored"]
            step.say(f"the search for groups ended when {scored} had been scored: there may be better ones")
        step.pass_on(partition)
        return jobs(groups, prepared.names, step.config.ensemble.baselines)


def _write(
    step: Step, prepared: Prepared, found: dict[str, Artifact], affinity: Artifact, previous: Any, folder: Path
) -> dict[str, Any]:
    from components.partition.plan import choose_partition  # brings scipy, which a step that is reused does without

    settings, names = step.config.partition, prepared.names
    table = load_file(affinity.folder / TABLE)
    estimator = group_estimator(step.config, prepared, found)
    chosen = choose_partition(
        names=names,
        entropy=np.array([dataset.entropy() for dataset in prepared.datasets]),
        members=table["members"],
        loss=table["loss"],
        affinity=table["affinity"],
        row_losses=estimator.row_losses,
        second_half=estimator.halves,
        groups=settings.groups,
        max_groups=settings.max_groups,
        bootstrap=settings.bootstrap,
        seed=step.config.seed,
        previous=previous,
    )
    step.flops += estimator.flops
    facts = chosen.to_json() | {"flops": estimator.flops}
    (folder / "partition.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    return facts


def jobs(groups: list[list[str]], names: list[str], baselines: list[Any]) -> list[str]:
    """The training jobs: members, and baselines. One on a group's datasets is that group's adapter and needs no job."""
    wanted = [{"name": name, "datasets": datasets} for name, datasets in members_of(groups, baselines).items()]
    if "per_dataset" in baselines:
        wanted += [{"name": alone(name), "datasets": [name]} for name in names if [name] not in groups]
    return [json.dumps(job) for job in wanted]
