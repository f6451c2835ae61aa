"""Estimates against real fine-tunes on real datasets: tables on ranking, errors, first order, partitions and cost."""

from typing import Any

from benchmarks.truth import setting
from benchmarks.truth.setting import Setting, note
from benchmarks.truth.steps import run_until


def study(to: Setting, table: str, **validation: int) -> None:
    """Run `loraloom validate`; tell the verdict and keep the numbers.

    Args:
        table: name of the JSON file.
        validation: settings of that section.
    """
    to.keep(table, measured(to, to.config(validation=validation)))


def measured(to: Setting, config: dict[str, Any]) -> dict[str, Any]:
    """What `loraloom validate` finds with a config, and what has to stand beside it."""
    summary, seconds = run_until(config, to.root, "judge")
    found = summary["validation"]
    for sentence in found["verdict"]:
        note(sentence)
    return {**setting.about(config, summary, seconds), **found}
