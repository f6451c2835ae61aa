"""Where adapters begin: at theta*, at the point where gradients are taken, or at the surrogate's own step from there.

The chosen groups' adapters, each trained for one epoch from all three beginnings, the last weights kept, beside the
product's: from theta*, with all epochs at most and the best kept. The surrogate's step also answers as it is. Its own
FLOPs, one more pass over the training rows of the features, are not counted.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.truth import setting
from benchmarks.truth.members import Members
from benchmarks.truth.methods import Method, Parts, measured, table
from benchmarks.truth.names import FULL
from benchmarks.truth.setting import Setting, note
from benchmarks.truth.steps import run_until
from components.artifacts import Artifact
from components.gradients.solution_step import solution_step
from components.group_estimator import group_estimator
from components.language_model import save_adapter
from components.on_demand import OnDemand
from components.tables import read_features

STEP = "the surrogate's step"


def beginnings(to: Setting, seeds: int) -> None:
    """Train the chosen groups from every beginning for every seed, and keep the table as far as it has come."""
    started, config = time.monotonic(), to.config()
    summary, _ = run_until(config, to.root, "partition")
    members, groups = Members.of(config, to.root, summary), summary["groups"]
    results: dict[str, list[dict[str, Any]]] = {}
    steps = [surrogate_step(members, group) for group in groups]
    for seed in range(seeds):
        for method in methods(members, groups, steps, seed):
            found = measured(members, method, seed)
            results.setdefault(method.name, []).append(found)
            note(f"seed {seed}: {method.name}: metric {found['metric']:.4f}, loss {found['calibrated']:.4f}")
            about = setting.about(config, summary, time.monotonic() - started)
            to.keep("beginnings", {**about, "groups": groups, "seeds": seed + 1, **table(results, FULL)})


def methods(members: Members, groups: list[list[str]], steps: list[Artifact], seed: int) -> Iterator[Method]:
    """Each group answered by its own adapter, one method a beginning."""
    one_epoch = 1 / members.step.config.training.epochs

    def briefly(starts: list[Artifact]) -> Parts:
        return [
            (members.brief(group, seed, one_epoch, start), group) for group, start in zip(groups, starts, strict=True)
        ]

    yield Method(FULL, [(members.trained(group, seed), group) for group in groups], features=True)
    yield Method("from theta*, one epoch", briefly([members.theta] * len(groups)), features=True)
    yield Method("from the point, one epoch", briefly([members.point] * len(groups)), features=True)
    yield Method(f"from {STEP}, one epoch", briefly(steps), features=True)
    yield Method(f"{STEP} itself", list(zip(steps, groups, strict=True)), features=True)


def surrogate_step(members: Members, names: list[str]) -> Artifact:
    """The point moved by the step that the surrogate's solution for the datasets ``names`` stands for."""

    def write(folder: Path) -> dict[str, Any]:
        config, work = members.step.config, OnDemand(members.step)
        model = work.trainable(members.point.folder)
        train = {name: read_features(artifact.folder, "train") for name, artifact in members.features.items()}
        estimator = group_estimator(config, members.prepared, members.features)
        tokens = config.gradients.batch_tokens
        _, change = solution_step(work, model, members.prepared, estimator, train, names, tokens)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in change:
                    parameter.add_(change[name])
        save_adapter(model, folder, work.base)
        return {"flops": 0}

    features = {name: artifact.digest for name, artifact in members.features.items()}
    return members.step.obtain("surrogate_step", "member", {"step_of": features, "datasets": names}, write)
