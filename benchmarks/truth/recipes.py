"""Which recipe wins per FLOP: how the epochs are divided between warm start and groups, and which members answer.

All are compared with one multi-task adapter from the raw initialisation that was given ``epochs`` epochs. theta* as a
member costs nothing; a multi-task adapter costs one more training.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

from benchmarks.truth import setting
from benchmarks.truth.controls import RAW
from benchmarks.truth.members import Members
from benchmarks.truth.methods import Method, Parts, measured, table
from benchmarks.truth.setting import Setting, note
from benchmarks.truth.steps import run_until

# warm start's epochs : groups' epochs : learning rate : groups
RECIPES = ("1:2:0.001:auto", "2:1:0.001:auto", "2:2:0.0005:auto", "1:3:0.001:2", "1:6:0.001:auto")


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

    def told(self) -> str:
        """As the table says it."""
        return f"{self.warm_start:g} + {self.epochs} epochs, rate {self.learning_rate:g}, {self.groups} groups"


def recipes(to: Setting, of: list[Recipe], seeds: int) -> None:
    """Run the common options' own recipe, then ``of``, and keep the table as far as it has come."""
    results: dict[str, list[dict[str, Any]]] = {}
    about: dict[str, Any] = {}
    default = Recipe(to.warm_start, to.epochs, to.learning_rate)
    for recipe in (default, *of):
        like = replace(to, warm_start=recipe.warm_start, epochs=recipe.epochs, learning_rate=recipe.learning_rate)
        config = like.config(partition={"groups": recipe.groups})
        started = time.monotonic()
        summary, _ = run_until(config, to.root, "partition")
        members = Members.of(config, to.root, summary)
        for seed in range(seeds):
            made = methods(members, summary["groups"], seed, recipe, baseline=recipe is default)
            for method in made:
                found = measured(members, method, seed)
                results.setdefault(method.name, []).append(found)
                note(f"seed {seed}: {method.name}: metric {found['metric']:.4f}, loss {found['loss']:.4f}")
            told = setting.about(config, summary, time.monotonic() - started)
            about[recipe.told()] = {**told, "groups": summary["groups"]}
            to.keep("recipes", {"recipes": about, "seeds": seeds, **table(results, RAW)})


def methods(
    members: Members, groups: list[list[str]], seed: int, recipe: Recipe, *, baseline: bool
) -> Iterator[Method]:
    """The ways to answer that a recipe's adapters allow; before them, what all are compared with."""
    names, told = members.prepared.names, recipe.told()
    if baseline:
        yield Method(RAW, [(members.from_raw(names, seed), names)], False, start=False)
    yield Method(f"{told}: theta*", [(None, names)], False)
    chosen: Parts = [(members.trained(group, seed), group) for group in groups]
    yield Method(f"{told}: own", chosen, False, features=True)
    yield Method(f"{told}: weighted", chosen, True, features=True)
    yield Method(f"{told}: weighted with theta*", [*chosen, (None, [])], True, features=True)
