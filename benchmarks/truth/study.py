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
    to.keep(table, measured(to, to.config(validation=validation))[0])


def measured(
    to: Setting, config: dict[str, Any], truth: dict[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run `loraloom validate` with a config.

    Args:
        truth: store keys of an earlier study, whose fine-tunes are taken for the truth; without, own ones are made.

    Returns:
        What it found, with date, machine and settings; and the store keys of everything it passed on.
    """
    summary, seconds = run_until(config, to.root, "judge", truth)
    found = summary["validation"]
    for sentence in found["verdict"]:
        note(sentence)
    return {**setting.about(config, summary, seconds), **found}, setting.keys_of(summary)


def judged_by(found: dict[str, Any]) -> dict[str, Any]:
    """What has to stand beside numbers that are taken from what :func:`measured` found: settings and fine-tunes."""
    fine_tunes = {"seeds": found["seeds"], "counts": found["counts"], "reliability": found["overall"]["reliability"]}
    return {**setting.about_again(found), **fine_tunes}
