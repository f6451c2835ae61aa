"""The step `boost`: boosters for a group, as long as its validation loss falls by more than its standard error."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.adapter_log import record_adapter
from components.adapters.boosting import paired_gain
from components.artifacts import Artifact, digest_of
from components.base_model import model_inputs
from components.inputs import START, Prepared, outputs_digest, read_datasets, weights_digest
from components.label_logits import obtain_logits, passed_logits
from components.members import is_group
from components.prepared import SplitName
from components.step import Step, read_references
from components.tables import Logits, row_losses

if TYPE_CHECKING:
    from components.on_demand import OnDemand

Where = tuple[str, SplitName]


@dataclass(frozen=True)
class Group:
    """A group while it is boosted.

    Attributes:
        name: of the group.
        members: names of its datasets, sorted.
        logits: the group's present logits by (dataset, split); ``train`` holds the rows features were taken of.
        start: the same rows' logits at theta*.
        features: feature artifacts by dataset.
    """

    name: str
    members: list[str]
    logits: dict[Where, np.ndarray]
    start: dict[Where, Logits]
    features: dict[str, Artifact]

    def losses(self, member: str) -> np.ndarray:
        """Cross-entropy of each validation row, nats, [N]."""
        return row_losses(self.logits[member, "validation"], self.start[member, "validation"].label)


def run(
    config: str,
    run_name: str,
    context: str,
    datasets: Path,
    start: Path,
    features: list[Path],
    adapters: list[Path],
    job: str,
    boosters: Path,
) -> None:
    """Boost the group of ``job``.

    Passed on: ``booster/<group>-<k>`` for every booster kept, with its logits on all datasets. A baseline is not
    boosted and passes nothing on.
    """
    task = json.loads(job)
    with Step("boost", config, run_name, part=task["name"]) as step:
        settings = step.config.boosting
        prepared = read_datasets(step, read_references(datasets))
        theta = step.load(read_references(start), START)
        references = read_references(features) | read_references(adapters)
        if is_group(task["name"]):
            group = _group(step, references, task)
            for k in range(settings.steps):
                if not _boost_once(step, context, prepared, theta, group, k):
                    break
        step.pass_on(boosters)


def _group(step: Step, references: dict[str, str], task: dict[str, Any]) -> Group:
    members = sorted(task["datasets"])
    where: list[Where] = [(name, "train") for name in members] + [(name, "validation") for name in members]
    start = {at: passed_logits(step, references, START, *at) for at in where}
    logits = {at: passed_logits(step, references, task["name"], *at).logits.astype(np.float64) for at in where}
    features = {name: step.load(references, f"features/{name}") for name in members}
    return Group(task["name"], members, logits, start, features)


def _boost_once(step: Step, context: str, prepared: Prepared, theta: Artifact, group: Group, k: int) -> bool:
    """One booster: make it, measure it on validation rows it was not fitted to, keep it or stop. True: kept."""
    from components.on_demand import OnDemand

    work, name = OnDemand(step), f"{group.name}-{k}"

    def write(folder: Path) -> dict[str, Any]:
        from components.adapters.booster_fit import fit_booster

        return fit_booster(step, work, prepared, theta, group, digest_of(inputs)[:32], folder)

    inputs = _inputs(step, prepared, theta, group)
    artifact = step.obtain(f"booster/{name}", "booster", inputs, write)
    before = [group.losses(member) for member in group.members]
    for member in group.members:
        _add(step, work, artifact, prepared, group, (member, "validation"), name)
    after = [group.losses(member) for member in group.members]
    gain, error = paired_gain(before, after)
    losses = [float(np.mean([rows.mean() for rows in side])) for side in (before, after)]
    step.facts[name] = {
        "validation_loss_before": losses[0],
        "validation_loss_after": losses[1],
        "standard_error": error,
        "kept": gain > error,
        "flops": artifact.facts["flops"],
    }
    if gain <= error:
        step.say(f"booster {name} is not kept: validation loss {losses[0]:.4f} -> {losses[1]:.4f}")
        step.withhold(name)
        return False
    step.say(f"booster {name} is kept: validation loss {losses[0]:.4f} -> {losses[1]:.4f}")
    for member in group.members:
        _add(step, work, artifact, prepared, group, (member, "train"), name)
    for dataset in prepared.datasets:
        for split in ("validation", "test"):
            outputs = outputs_digest(step, weights_digest(artifact))
            obtain_logits(step, outputs, dataset, split, work.logits(artifact.folder, dataset, split), model=name)
    step.facts[name]["mlflow"] = record_adapter(
        step,
        context,
        name=f"booster-{name}",
        kind="booster",
        artifact=artifact,
        curve=artifact.facts["curve"],
        datasets=group.members,
        prepared=prepared,
    )
    return True


def _add(
    step: Step, work: "OnDemand", artifact: Artifact, prepared: Prepared, group: Group, at: Where, name: str
) -> None:
    """Add a booster to the group's logits of one dataset and split: ``z_g <- z_g + eta (z_b - z*)``."""
    dataset, split = prepared[at[0]], at[1]
    table = obtain_logits(
        step,
        outputs_digest(step, weights_digest(artifact)),
        dataset,
        split,
        work.logits(artifact.folder, dataset, split),
        model=name,
        index=np.flatnonzero(np.isin(dataset.splits[split].row, group.start[at].row)),
    )
    group.logits[at] += step.config.boosting.shrinkage * (table.logits - group.start[at].logits)


def _inputs(step: Step, prepared: Prepared, theta: Artifact, group: Group) -> dict[str, Any]:
    """What a booster is made of. The group's logits stand for its adapter and the boosters before this one."""
    return {
        "model": model_inputs(step.config.model),
        "start": theta.digest,
        "datasets": {name: prepared.digests[name] for name in group.members},
        "features": {name: group.features[name].digest for name in group.members},
        "logits": {name: digest_of(np.round(group.logits[name, "train"], 4).tolist()) for name in group.members},
        "method": step.config.boosting.method,
        "training": step.config.training.model_dump() if step.config.boosting.method == "trained" else None,
        "seed": step.config.seed,
    }
