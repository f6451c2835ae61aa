"""Which recipe wins per FLOP: how the epochs are divided between warm start and groups, at which rate and rank.

Beside each recipe stands one multi-task adapter from the raw initialisation of as many epochs (rounded up to whole
ones), rate and rank alike. The first recipe's, and that recipe's groups, are what all methods are compared with. The
look-ahead is the common options' for all. Adapters answer alone: what mixing them gains is the controls' question.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import typer

from benchmarks.truth.members import Members
from benchmarks.truth.methods import Method, Parts, Results, add, table
from benchmarks.truth.names import RAW
from benchmarks.truth.planned import Planned
from benchmarks.truth.setting import Setting

# warm start's epochs : groups' epochs : learning rate : groups : rank, if another
RECIPES = (
    "2:2:0.001:auto",
    "0:4:0.001:auto",
    "1:3:0.0005:auto",
    "1:3:0.002:auto",
    "0.5:3:0.001:auto",
    "0.25:3:0.001:auto",
    "1:3:0.001:auto:4",
    "1:3:0.001:auto:16",
)


@dataclass(frozen=True)
class Recipe:
    """Epochs of the warm start and at most of a group, the groups' learning rate and number, and LoRA's rank.

    Without a rank it is the common config's.
    """

    warm_start: float
    epochs: int
    learning_rate: float
    groups: int | str = "auto"
    rank: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``warm start's epochs:groups' epochs:learning rate:groups``, and ``:rank``.

        Raises:
            typer.BadParameter: the text is none.
        """
        try:
            warm, epochs, rate, groups, *rank = text.split(":")
            many = groups if groups == "auto" else int(groups)
            return cls(float(warm), int(epochs), float(rate), many, *map(int, rank))
        except (ValueError, TypeError) as error:
            example = RECIPES[0]
            raise typer.BadParameter(f"no recipe: {text}; one is {example}, or with a rank {example}:4") from error

    @property
    def lora(self) -> dict[str, int]:
        """What changes in the config's section: alpha grows with the rank, so that an update is scaled alike."""
        return {} if self.rank is None else {"rank": self.rank, "alpha": 2 * self.rank}

    def total(self) -> int:
        """Epochs of both, rounded up to whole ones."""
        return math.ceil(self.warm_start + self.epochs)

    def raw(self) -> str:
        """What the table calls one multi-task adapter of as many epochs."""
        return f"{RAW}, {self.total()} epochs, {self._how()}"

    def told(self) -> str:
        """As the table says it."""
        return f"{self._trained()}, {self.groups} groups"

    def own(self) -> str:
        """What the table calls its groups' adapters."""
        return f"{self.told()}: own"

    def theta(self) -> str:
        """What the table calls theta* alone, which the groups' epochs and rate do not change."""
        return f"theta*, {self.warm_start:g} epochs{self._rank()}"

    def multitask(self) -> str:
        """What the table calls one multi-task adapter from theta*, which the groups do not change."""
        return f"{self._trained()}: multi-task"

    def _trained(self) -> str:
        return f"{self.warm_start:g} + {self.epochs} epochs, {self._how()}"

    def _how(self) -> str:
        return f"rate {self.learning_rate:g}{self._rank()}"

    def _rank(self) -> str:
        return "" if self.rank is None else f", rank {self.rank}"


def recipes(to: Setting, of: list[Recipe], seeds: int) -> None:
    """Run the common options' own recipe, then ``of``, and keep the table as far as it has come."""
    results: Results = {}
    about: dict[str, Any] = {}
    default = Recipe(to.warm_start, to.epochs, to.learning_rate)
    against = (default.raw(), default.own())
    for recipe, (config, alone) in {one: configs(to, one) for one in (default, *of)}.items():
        planned = Planned.of(to.root, config)
        untouched, known = Members.of(alone, to.root, planned.summary), set(results)
        for seed in range(seeds):
            ways = [(untouched, raw(untouched, seed, recipe))]
            ways += [(planned.members, method) for method in methods(planned, seed, recipe)]
            for members, method in ways:
                if method.name not in known:  # of another recipe too
                    add(results, members, method, seed)
        about[recipe.told()] = {**planned.about(), "groups": planned.groups}
        to.keep("recipes", {"recipes": about, "seeds": seeds, "against": against, **table(results, *against)})


def configs(to: Setting, recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of a recipe, and of the multi-task adapter beside it.

    Raises:
        typer.BadParameter: the recipe has numbers that the product does not take.
    """
    like = replace(to, warm_start=recipe.warm_start, epochs=recipe.epochs, learning_rate=recipe.learning_rate)
    ahead = {"lookahead": to.warm_start}
    config = like.config(partition={"groups": recipe.groups}, warm_start=ahead, lora=recipe.lora)
    return config, replace(like, epochs=recipe.total()).config(lora=recipe.lora)


def raw(members: Members, seed: int, recipe: Recipe) -> Method:
    """One multi-task adapter of as many epochs, without a warm start."""
    names = members.prepared.names
    return Method(recipe.raw(), [(members.from_raw(names, seed), names)], start=False)


def methods(planned: Planned, seed: int, recipe: Recipe) -> Iterator[Method]:
    """The ways to answer that a recipe's adapters allow; without a warm start theta* and multi-task are nothing new."""
    members, names = planned.members, planned.members.prepared.names
    chosen: Parts = [(members.trained(group, seed), group) for group in planned.groups]
    yield Method(recipe.own(), chosen, features=True)
    if recipe.warm_start:
        yield Method(recipe.theta(), [(None, names)])
        yield Method(recipe.multitask(), [(members.trained(names, seed), names)])
