"""Choosing data sources for a target, checked by real fine-tunes."""

from rich.console import Console

from benchmarks.truth import setting
from benchmarks.truth.setting import Setting, refuse_unknown
from benchmarks.truth.steps import run_until
from pipelines.show_selection import show_selection


def sources(to: Setting, targets: list[str], seeds: int) -> None:
    """Run `loraloom select --validate` for each target; print the tables and keep the numbers.

    Raises:
        typer.BadParameter: a target is none of the datasets.
    """
    refuse_unknown("targets", targets, to.datasets)
    configs = {target: to.config(selection={"target": target, "seeds": seeds}) for target in targets}
    to.refuse_to_mix("sources")
    for target, config in configs.items():
        summary, seconds = run_until(config, to.root, "confirm")
        show_selection(Console(), summary["selection"])
        to.add("sources", target, {**setting.about(config, summary, seconds), **summary["selection"]})
