"""Commands that run the pipeline on this machine: plan, run, demo."""

import json
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from components.config import RunConfig
from components.config_file import read_config
from components.errors import UserError, writable
from pipelines.commands.common import ConfigOption, DebugOption, RootOption, reported, where
from pipelines.invocation import typed
from pipelines.local import Runner, default_root, run_local

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Do what `check` does, print the steps, run nothing.")]

RunnerOption = Annotated[
    Runner, typer.Option("--runner", help="Each step a process of this machine, or a container (see `make images`).")
]


def plan(
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    runner: RunnerOption = "subprocess",
    debug: DebugOption = False,
) -> None:
    """Run up to the partition: show the groups, what they should bring, and what training will cost.

    `loraloom run` goes on from here; nothing is computed twice.
    """
    with reported(debug):
        config = read_config(config_file)
        summary = run_local(config, root or default_root(config), until="partition", runner=runner, debug=debug)
        from pipelines.show import show_plan
        from pipelines.training_plan import training_plan

        console = Console()
        show_plan(console, summary, training_plan(config, summary))
        options = where(config_file, root) + (["--runner", runner] if runner != "subprocess" else [])
        console.print(Text(f"-> {typed('run', *options)}"), soft_wrap=True)


def run(
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    runner: RunnerOption = "subprocess",
    dry_run: DryRunOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the whole pipeline on this machine and register the ensemble.

    Stopped or failed, the same command goes on from what is finished.
    """
    with reported(debug):
        config = read_config(config_file)
        if dry_run:
            _dry_run(config, root or default_root(config))
            return
        summary = run_local(config, root or default_root(config), runner=runner, debug=debug)
        from pipelines.show import show_result

        show_result(Console(), summary, where(config_file, root))


def resume(
    config_file: ConfigOption = Path("config.yaml"),
    root: RootOption = None,
    runner: RunnerOption = "subprocess",
    debug: DebugOption = False,
) -> None:
    """Go on with a run that was stopped, killed or failed, to the end of the whole pipeline.

    What is finished is taken as it is: nothing is computed twice, and adapters that MLflow missed are registered.
    """
    with reported(debug):
        folder = root or default_root(read_config(config_file))
        if not (folder / "logs").is_dir():
            raise UserError(f"no run has begun under {folder}", remedy=typed("run", *where(config_file, root)))
    run(config_file, root, runner, dry_run=False, debug=debug)


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for the demo's data, config and results.")] = Path(
        ".loraloom/demo"
    ),
    runner: RunnerOption = "subprocess",
    debug: DebugOption = False,
) -> None:
    """Generate small datasets and run the whole pipeline on them with the base model that comes along.

    Needs no network and no GPU.
    """
    with reported(debug):
        with writable(folder):
            config_file = _write_demo(folder)
        config = read_config(config_file)
        typer.echo(f"wrote {config_file} and its data")
        summary = run_local(config, folder, runner=runner, debug=debug)
        from pipelines.show import show_result

        show_result(Console(), summary, where(config_file, None if folder == default_root(config) else folder))


def _write_demo(folder: Path) -> Path:
    """The demo's datasets, and its config with the base model's place on this machine; returns the config's path."""
    from pipelines.demo.generate import generate

    generate(folder / "data")
    demo_files = resources.files("pipelines.demo")
    text = demo_files.joinpath("config.yaml").read_text("utf-8")
    config_file = folder / "config.yaml"
    config_file.write_text(
        text.replace("id: base_model", f"id: {json.dumps(str(demo_files / 'base_model'))}"), encoding="utf-8"
    )
    return config_file


def _dry_run(config: RunConfig, root: Path) -> None:
    from pipelines.checks import check

    console = Console()
    with console.status("checking data and model"):
        findings = check(config)
    if findings.problems:
        raise UserError("a run would stop at once", problems=findings.problems, remedy="mend these first")
    for number, (step, what) in enumerate(_steps(config), start=1):
        console.print(Text(f"{number:2} {step:<11} {what}"))
    console.print(Text(f"everything goes to {root}; steps whose inputs did not change are reused"), soft_wrap=True)


def _steps(config: RunConfig) -> list[tuple[str, str]]:
    datasets, groups = len(config.datasets), config.partition.groups
    baselines = ", ".join(config.ensemble.baselines) or "none"
    exhaustive = datasets <= config.surrogate.exhaustive_up_to
    subsets = f"all {2**datasets - 1}" if exhaustive else str(config.surrogate.subsets)
    warm, boosting = config.warm_start, config.boosting
    start = (
        f"{warm.epochs:g} epochs over {warm.samples_per_dataset} rows a dataset"
        if warm.epochs
        else "initialisation only"
    )
    if warm.lookahead_epochs:
        start += f"; gradients halfway along {warm.lookahead_epochs:g} more"
    rows = config.gradients.samples_per_dataset
    better = "to champion, if better on average, within margin and floor"
    return [
        ("prepare", f"{datasets} datasets: read, validate, split"),
        ("warm_start", start),
        ("extract", f"gradients of {'as many rows as pay off' if rows == 'auto' else f'{rows} rows'} a dataset"),
        ("estimate", f"{subsets} subsets of the datasets"),
        ("partition", "as few groups as are as good as more" if groups == "auto" else f"{groups} groups"),
        ("train", f"one adapter a group, {config.training.epochs} epochs at most; baselines: {baselines}"),
        ("boost", f"{boosting.steps} {boosting.method} boosters a group where they help" if boosting.steps else "off"),
        ("weigh", "weights from validation logits"),
        ("servable", "merged adapters, how far they are from the ensemble" + ", a router" * config.serving.router),
        ("evaluate", "test results, intervals, costs, report"),
        ("register", "a new version, alias challenger"),
        ("promote", "by hand" if config.registry.promote == "manual" else better),
    ]
