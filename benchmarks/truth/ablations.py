"""What each choice gains for the estimates and costs: parts, dimension, look-ahead, lambda, rows, warm start, rank.

All are judged by the default's fine-tunes. Where theta* is another, with another warm start or rank, those began
elsewhere: such a row tells how well its estimates rank the default's fine-tunes, and its relative error contains the
difference between the two starts. What a setting's own groups would reach is not asked: that would take fine-tunes of
its groups.
"""

from typing import Any

from benchmarks.truth.setting import Setting, merged, note, refuse_unknown
from benchmarks.truth.study import judged_by, measured
from components.validation.verdict import ONE_FIFTH_PERCENT

DEFAULT = "default"
CHANGES: dict[str, dict[str, Any]] = {
    "one part": {"surrogate": {"width": 2400}},
    "parts of 200": {"surrogate": {"width": 200}},
    "parts of 800": {"surrogate": {"width": 800}},
    "dim 400 in one part": {"gradients": {"dim": 400}},
    "dim 800 in one part": {"gradients": {"dim": 800}, "surrogate": {"width": 800}},
    "dim 1200 in three parts": {"gradients": {"dim": 1200}},
    "no look-ahead": {"warm_start": {"lookahead": 0}},
    "look-ahead 0.5": {"warm_start": {"lookahead": 0.5}},
    "look-ahead 3": {"warm_start": {"lookahead": 3}},
    "one lambda": {"surrogate": {"lambdas": [1]}},
    "lambdas to 3": {"surrogate": {"lambdas": [1000, 300, 100, 30, 10, 3]}},
    "lambdas to 0.3": {"surrogate": {"lambdas": [1000, 300, 100, 30, 10, 3, 1, 0.3]}},
    "rows 100": {"gradients": {"samples_per_dataset": 100}},
    "rows 50": {"gradients": {"samples_per_dataset": 50}},
    "warm start 0": {"warm_start": {"epochs": 0, "lookahead": 0}},
    "warm start 0 and look-ahead 1": {"warm_start": {"epochs": 0, "lookahead": 1}},
    "warm start 0.25": {"warm_start": {"epochs": 0.25, "lookahead": 0.25}},
    "warm start 0.5": {"warm_start": {"epochs": 0.5, "lookahead": 0.5}},
    "warm start 2": {"warm_start": {"epochs": 2, "lookahead": 2}},
    "rank 4": {"lora": {"rank": 4, "alpha": 8}},
    "rank 16": {"lora": {"rank": 16, "alpha": 32}},
}


def ablations(to: Setting, only: list[str], subsets: int, seeds: int) -> None:
    """Run the default and the settings named in ``only`` (empty: all).

    The table keeps rows of earlier calls that were judged by the same fine-tunes.

    Raises:
        typer.BadParameter: a setting is unknown.
    """
    refuse_unknown("settings", only, (DEFAULT, *CHANGES))
    sample = {"subsets": subsets, "pairs": 0, "partitions": 0, "seeds": seeds}
    base = to.config(validation={**sample, "distances": [ONE_FIFTH_PERCENT]})
    to.refuse_to_mix("ablations")
    note(DEFAULT)
    default, truth = measured(to, base)
    rows = {DEFAULT: row(default), **judged_alike(to.kept("ablations"), default)}
    to.keep("ablations", rows)
    for name, change in CHANGES.items():
        if not only or name in only:
            note(name)
            found, _ = measured(to, merged(base, change), truth)
            rows[name] = row(found)
            to.keep("ablations", rows)


def judged_alike(kept: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Of the changes' rows ``kept`` those judged by the fine-tunes of ``found``, which alone decide the reliability."""
    judged = found["counts"], found["seeds"], found["overall"]["reliability"]
    return {
        name: one
        for name, one in kept.items()
        if name in CHANGES and (one["counts"], one["seeds"], one["reliability"]) == judged
    }


def row(found: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one setting that the table shows, with what has to stand beside them."""
    ours = found["overall"]["predictors"]["surrogate"]
    return {
        **judged_by(found),
        **ours,
        "model_flops": found["cost"]["estimating"]["flops"] - found["cost"]["solver"],
    }
