"""Commands that fine-tune for real to see what the estimates are worth, or ask them for advice: validate, select."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from components.config_file import read_config
from components.errors import UserError
from pipelines.catalogue import Until, check_until
from pipelines.commands.common import ConfigOption, DebugOption, RootOption, reported
from pipelines.commands.running import RunnerOption
from pipelines.local import default_root, run_local


def validate(
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    subsets: Annotated[int | None, typer.Option(help="Random subsets; validation.subsets if not given.", min=1)] = None,
    seeds: Annotated[int | None, typer.Option(help="Fine-tunes of each; validation.seeds if not given.", min=2)] = None,
    runner: RunnerOption = "subprocess",
    debug: DebugOption = False,
) -> None:
    """Fine-tune a sample of subsets for real and say whether the estimates deserve trust on this data.

    Stopped, the same command goes on. More subsets or seeds later only add to what is there.
    """
    with reported(debug):
        config = read_config(config_file)
        check_until(config, "judge")
        given = {key: value for key, value in (("subsets", subsets), ("seeds", seeds)) if value is not None}
        config = config.model_copy(update={"validation": config.validation.model_copy(update=given)})
        folder = root or default_root(config)
        summary = run_local(config, folder, until="judge", runner=runner, debug=debug)
        console = Console()
        for sentence in summary["validation"]["verdict"]:
            console.print(Text(sentence), soft_wrap=True)
        console.print(Text(f"-> {folder / 'validation.html'}"), soft_wrap=True)


def select(
    target: Annotated[str, typer.Option(help="The dataset that others are chosen for.")],
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    fine_tune: Annotated[
        bool, typer.Option("--validate", help="Fine-tune for real: the chosen set, all datasets, the target alone.")
    ] = False,
    runner: RunnerOption = "subprocess",
    debug: DebugOption = False,
) -> None:
    """Show which other datasets should be trained along with one: the order, what each brings, and where to stop."""
    with reported(debug):
        config = read_config(config_file)
        names = [dataset.name for dataset in config.datasets]
        if target not in names:
            raise UserError(f"{target} is no dataset of {config_file}", remedy=f"choose one of {', '.join(names)}")
        config = config.model_copy(update={"selection": config.selection.model_copy(update={"target": target})})
        until: Until = "confirm" if fine_tune else "select"
        check_until(config, until)
        folder = root or default_root(config)
        summary = run_local(config, folder, until=until, runner=runner, debug=debug)
        from pipelines.show_selection import show_selection

        console = Console()
        show_selection(console, summary["selection"])
        console.print(Text(f"-> {folder / 'selection.json'}"), soft_wrap=True)
