"""Boosting's first step, made of gradients or trained: errors and losses of the chosen groups before and after it.

The step is measured whether or not the product would keep it, and as the product does (kept where the validation loss
falls by more than its standard error).
"""

from typing import Any

import numpy as np

from benchmarks.truth.members import Members
from benchmarks.truth.planned import Planned
from benchmarks.truth.setting import Setting, note
from components.adapters.boost import Group
from components.adapters.booster_fit import fit_booster
from components.adapters.boosting import paired_gain
from components.artifacts import Artifact, digest_of
from components.on_demand import OnDemand
from components.sampling import feature_index
from components.tables import Logits, row_losses
from components.validation.partitions import difference

SPLITS = ("train", "validation", "test")
METHODS = ("linear", "trained")


def boosting(to: Setting, seeds: int) -> None:
    """Boost every chosen group once by either method, for every seed of the groups' adapters, and keep the table."""
    to.refuse_to_mix("boosting")
    for method in METHODS:
        note(method)
        _by(to, method, seeds)


def _by(to: Setting, method: str, seeds: int) -> None:
    planned = Planned.of(to.root, to.config(boosting={"steps": 1, "method": method}))
    found: list[dict[str, Any]] = []
    for seed in range(seeds):
        groups = [_boosted(planned.members, group, seed) for group in planned.groups]
        found.append({"groups": groups, **over_datasets(groups)})
        note(f"seed {seed}: {found[-1]['change']}")
        mean_changes = over_seeds([one["change"] for one in found])
        to.add("boosting", method, {**planned.about(), "seeds": found, **mean_changes})


def over_seeds(changes: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean changes with their noise between seeds; empty for a single one."""
    if len(changes) < 2:
        return {}
    quantities = [(how, what) for how in changes[0] for what in changes[0][how]]
    return {
        "mean": {
            f"{how}: {what}": vars(difference(np.array([one[how][what] for one in changes])))
            for how, what in quantities
        }
    }


def _boosted(members: Members, names: list[str], seed: int) -> dict[str, Any]:
    """One group: errors and losses by split and dataset before and after its first booster, and whether it is kept."""
    step, adapter = members.step, members.trained(names, seed)
    group = _group(members, adapter, names)
    features = {name: members.features[name].digest for name in names}
    inputs = {"adapter": adapter.digest, "features": features, "method": step.config.boosting.method}

    def write(folder: Any) -> dict[str, Any]:
        job = f"truth-{digest_of(inputs)[:24]}"
        return fit_booster(step, OnDemand(step), members.prepared, members.theta, group, job, folder)

    booster = step.obtain("booster", "member", {"booster_of": inputs}, write)
    rows = {(name, split): _before_and_after(members, adapter, booster, name, split)
            for name in names for split in SPLITS}  # fmt: skip
    losses = [[row_losses(rows[name, "validation"][k], rows[name, "validation"][2]) for name in names] for k in (0, 1)]
    gain, error = paired_gain(*losses)
    told = {split: {name: _told(*rows[name, split]) for name in names} for split in SPLITS}
    return {"datasets": names, "kept": bool(gain > error), "flops": booster.facts["flops"], "measured": told}


def _group(members: Members, adapter: Artifact, names: list[str]) -> Group:
    logits, start = {}, {}
    for name in names:
        for split in ("train", "validation"):
            index = _index(members, name, split)
            logits[name, split] = members.logits(adapter, name, split, index)[0]
            at_start, label = members.logits(None, name, split, index)
            row = members.prepared[name].splits[split].row[index]
            start[name, split] = Logits(row, at_start.astype(np.float32), label)
    return Group("group", sorted(names), logits, start, {name: members.features[name] for name in names})


def _index(members: Members, name: str, split: Any) -> np.ndarray:
    """Positions of the training rows that features were taken of; of the other splits, all."""
    dataset = members.prepared[name]
    if split == "train":
        return feature_index(members.step.config, dataset, "train")
    return np.arange(len(dataset.splits[split].row))


def _before_and_after(
    members: Members, adapter: Artifact, booster: Artifact, name: str, split: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits [N, C] of the group's adapter, the same with the booster's step, and the labels [N]."""
    index = _index(members, name, split)
    before, label = members.logits(adapter, name, split, index)
    start, moved = (members.logits(one, name, split, index)[0] for one in (None, booster))
    return before, before + members.step.config.boosting.shrinkage * (moved - start), label


def _told(before: np.ndarray, after: np.ndarray, label: np.ndarray) -> dict[str, list[float]]:
    """The share of wrong answers and the mean loss in nats, each before and after; logits [N, C], labels [N]."""
    sides = (before, after)
    return {
        "error": [float((side.argmax(axis=1) != label).mean()) for side in sides],
        "loss": [float(row_losses(side, label).mean()) for side in sides],
    }


def over_datasets(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over datasets of every quantity before the step, and its change by the step: always, and where kept."""
    before: dict[str, float] = {}
    change: dict[str, dict[str, float]] = {"always": {}, "where kept": {}}
    for split in SPLITS:
        for what in ("error", "loss"):
            pairs = [(group["kept"], *one[what]) for group in groups for one in group["measured"][split].values()]
            before[f"{split} {what}"] = float(np.mean([was for _, was, _ in pairs]))
            change["always"][f"{split} {what}"] = float(np.mean([now - was for _, was, now in pairs]))
            change["where kept"][f"{split} {what}"] = float(np.mean([kept * (now - was) for kept, was, now in pairs]))
    return {"before": before, "change": change}
