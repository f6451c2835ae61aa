"""Which recipe wins per FLOP: how the epochs are divided between warm start and groups, and at which rate.

Beside each recipe stands one multi-task adapter from the raw initialisation with as many epochs and the same rate. The
first recipe's is the one that all methods are compared with. Adapters answer alone: what mixing them gains is the
controls' question.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

from benchmarks.truth import setting
from benchmarks.truth.members import Members
from benchmarks.truth.methods import Method, Parts, Results, add, table
from benchmarks.truth.setting import Setting
from benchmarks.truth.steps import run_until

# warm start's epochs : groups' epochs : learning rate : groups
RECIPES = ("2:2:0.001:auto", "1:3:0.002:auto", "2:2:0.002:auto")


@dataclass(frozen=True)
class Recipe:
    """Epochs of the warm start and at most of a group, learning rate of the groups, and how many of them."""

    warm_start: float
    epochs: int
    learning_rate: float
    groups: int | str = "auto"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``warm start's epochs:groups' epochs:learning rate:groups``."""
        warm, epochs, rate, groups = text.split(":")
        return cls(float(warm), int(epochs), float(rate), groups if groups == "auto" else int(groups))

    def total(self) -> int:
        """Epochs of both, in whole ones."""
        return math.ceil(self.warm_start + self.epochs)

    def raw(self) -> str:
        """What the table calls one multi-task adapter of as many epochs."""
        return f"multi-task, raw start, {self.total()} epochs, rate {self.learning_rate:g}"

    def told(self) -> str:
        """As the table says it."""
        return f"{self.warm_start:g} + {self.epochs} epochs, rate {self.learning_rate:g}, {self.groups} groups"


def recipes(to: Setting, of: list[Recipe], seeds: int) -> None:
    """Run the common options' own recipe, then ``of``, and keep the table as far as it has come."""
    results: Results = {}
    about: dict[str, Any] = {}
    for recipe in (Recipe(to.warm_start, to.epochs, to.learning_rate), *of):
        like = replace(to, warm_start=recipe.warm_start, epochs=recipe.epochs, learning_rate=recipe.learning_rate)
        config = like.config(partition={"groups": recipe.groups})
        started = time.monotonic()
        summary, _ = run_until(config, to.root, "partition")
        members = Members.of(config, to.root, summary)
        alone = replace(like, epochs=recipe.total()).config()
        compared = [] if recipe.raw() in about else [Members.of(alone, to.root, summary)]
        for seed in range(seeds):
            ways = [(one, raw(one, seed, recipe)) for one in compared]
            ways += [(members, method) for method in methods(members, summary["groups"], seed, recipe)]
            for one, method in ways:
                add(results, one, method, seed)
        told = setting.about(config, summary, time.monotonic() - started)
        about[recipe.told()] = {**told, "groups": summary["groups"]}
        about.setdefault(recipe.raw(), setting.about(alone, summary, told["wall_clock_seconds"]))
        first = next(iter(results))
        to.keep("recipes", {"recipes": about, "seeds": seeds, "against": first, **table(results, first)})


def raw(members: Members, seed: int, recipe: Recipe) -> Method:
    """One multi-task adapter of as many epochs, without a warm start."""
    names = members.prepared.names
    return Method(recipe.raw(), [(members.from_raw(names, seed), names)], start=False)


def methods(members: Members, groups: list[list[str]], seed: int, recipe: Recipe) -> Iterator[Method]:
    """The ways to answer that a recipe's adapters allow."""
    names, told = members.prepared.names, recipe.told()
    yield Method(f"{told}: theta*", [(None, names)])
    chosen: Parts = [(members.trained(group, seed), group) for group in groups]
    yield Method(f"{told}: own", chosen, features=True)
    yield Method(f"{told}: multi-task", [(members.trained(names, seed), names)])
