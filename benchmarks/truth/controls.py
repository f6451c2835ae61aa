"""Where a gain comes from: the ensemble against its controls, at stated FLOPs, over seeds.

Methods, each with the product's recipe: one multi-task adapter from the raw initialisation and from theta*; an adapter
each; the chosen groups by their own adapter and weighted; a random partition of the same shape, another for every seed;
m adapters on everything with 1/m of the steps each; two multi-task adapters weighted, and their weights averaged; the
chosen groups with theta* or with a multi-task adapter as one member more. The product's ensemble is "multi-task and
chosen groups"; its control is the same with random groups. "Chosen groups and multi-task" has the same members; the
weights' prior is on what is named first.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.truth.members import Members
from benchmarks.truth.methods import Method, Parts, Results, add, table
from benchmarks.truth.names import COMPARED, EACH, ENSEMBLE, FROM_START, GROUPS, RANDOM, RAW
from benchmarks.truth.planned import Planned
from benchmarks.truth.setting import Setting
from components.artifacts import Artifact
from components.validation.subsets import random_partitions


def controls(to: Setting, seeds: int) -> None:
    """Train the members of every method for every seed, and keep the table as far as it has come."""
    planned = Planned.of(to.root, to.config())
    members, groups = planned.members, planned.groups
    results: Results = {}
    for seed in range(seeds):
        for method in methods(members, groups, seed):
            add(results, members, method, seed)
            rows = table(results, *COMPARED)
            found = {"groups": groups, "seeds": seed + 1, "plan_flops": members.plan}
            to.keep("controls", {**planned.about(), **found, **rows})


def methods(members: Members, groups: list[list[str]], seed: int) -> Iterator[Method]:
    """Every method for one seed; its members are trained as it is reached."""
    names, m = members.prepared.names, len(groups)
    yield Method(RAW, [(members.from_raw(names, seed), names)], start=False)
    once = members.trained(names, seed)
    yield Method(FROM_START, [(once, names)])
    chosen: Parts = [(members.trained(group, seed), group) for group in groups]
    yield Method("chosen groups, own", chosen, features=True)
    yield Method(GROUPS, chosen, weighted=True, features=True)
    yield Method("chosen groups and theta*, weighted", [*chosen, (None, [])], weighted=True, features=True)
    yield Method("chosen groups and multi-task, weighted", [*chosen, (once, [])], weighted=True, features=True)
    yield Method(ENSEMBLE, with_first(once, names, chosen), weighted=True, features=True)
    yield Method("multi-task and theta*, weighted", [(once, names), (None, [])], weighted=True)
    yield Method(EACH, [(members.trained([name], seed), [name]) for name in names])
    again = members.trained(names, seed + 1000)
    yield Method("two multi-task, weighted", [(once, names), (again, names)], weighted=True)
    yield Method("two multi-task, averaged weights", [(members.averaged([once, again]), names)])
    for drawn in random_partitions(groups, names, 1, np.random.default_rng(seed)):  # none where there is no other
        parts: Parts = [(members.trained(group, seed), group) for group in drawn]
        yield Method("random groups, own", parts)
        yield Method("random groups, weighted", parts, weighted=True)
        yield Method(RANDOM, with_first(once, names, parts), weighted=True)
    shares: Parts = [(members.brief(names, seed + 100 * k, 1 / m), names) for k in range(m)]
    yield Method(f"{m} adapters on everything, 1/{m} of the steps", shares, weighted=True)


def with_first(multitask: Artifact, names: list[str], groups: Parts) -> Parts:
    """The members of the product's ensemble: a multi-task adapter, which answers first, and groups."""
    return [(multitask, names), *((adapter, []) for adapter, _ in groups)]
