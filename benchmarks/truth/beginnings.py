"""Where adapters begin: at theta*, at the point where gradients are taken, or at the surrogate's own step from there.

From each beginning the chosen groups' adapters are trained for one epoch, and the last weights are kept. Beside them
stand the product's adapters (from theta*, all epochs at most, the best weights), and the step without training. Making
the step takes one more pass over the training rows that features were taken of.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.truth.members import Members
from benchmarks.truth.methods import Method, Parts, Results, add, table
from benchmarks.truth.names import FROM_POINT, FULL
from benchmarks.truth.planned import Planned
from benchmarks.truth.setting import Setting
from components.artifacts import Artifact
from components.gradients.solution_step import solution_step
from components.group_estimator import estimated_from, group_estimator
from components.language_model import save_adapter
from components.on_demand import OnDemand
from components.tables import read_features
from components.weighted_step import add_change


def beginnings(to: Setting, seeds: int) -> None:
    """Train the chosen groups from every beginning for every seed, and keep the table as far as it has come."""
    planned = Planned.of(to.root, to.config())
    members, groups = planned.members, planned.groups
    results: Results = {}
    steps = [surrogate_step(members, group) for group in groups]
    for seed in range(seeds):
        for method in methods(members, groups, steps, seed):
            add(results, members, method, seed)
            found = {"groups": groups, "seeds": seed + 1}
            to.keep("beginnings", {**planned.about(), **found, **table(results, FULL, FROM_POINT)})


def methods(members: Members, groups: list[list[str]], steps: list[Artifact], seed: int) -> Iterator[Method]:
    """Each group answered by its own adapter, one method a beginning."""
    one_epoch = 1 / members.step.config.training.epochs

    def briefly(starts: list[Artifact]) -> Parts:
        return [(members.brief(names, seed, one_epoch, at), names) for names, at in zip(groups, starts, strict=True)]

    yield Method(FULL, [(members.trained(group, seed), group) for group in groups], features=True)
    yield Method("from theta*, one epoch", briefly([members.theta] * len(groups)), features=True)
    yield Method(FROM_POINT, briefly([members.point] * len(groups)), features=True)
    stepping = sum(one.facts["flops"] for one in steps)
    yield Method("from the surrogate's step, one epoch", briefly(steps), features=True, flops=stepping)
    yield Method("the surrogate's step itself", list(zip(steps, groups, strict=True)), features=True)


def surrogate_step(members: Members, names: list[str]) -> Artifact:
    """The point moved by the step that the surrogate's solution for the datasets ``names`` stands for."""
    config, prepared, features = members.step.config, members.prepared, members.features

    def write(folder: Path) -> dict[str, Any]:
        work = OnDemand(members.step)
        model = work.trainable(members.point.folder)
        train = {name: read_features(artifact.folder, "train") for name, artifact in features.items()}
        estimator = group_estimator(config, prepared, features)
        tokens = config.gradients.batch_tokens
        add_change(model, solution_step(work, model, prepared, estimator, train, names, tokens)[1])
        save_adapter(model, folder, work.base)
        passed = [work.examples(prepared[name], "train", train[name].row) for name in names]
        return {"flops": work.cost(model).training(*work.spent(passed))}

    inputs = {"step_of": estimated_from(config, prepared.digests, features), "names": names}
    return members.step.obtain("surrogate_step", "member", inputs, write)
