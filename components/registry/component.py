"""The KFP components of `open_run`, `changes`, `register`, `promote` and `close_run`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import CPU


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def open_run(config: str, run_name: str) -> str:
    """Open MLflow's parent run; returns the run's context."""
    from components.registry.open_run import run

    return run(config, run_name)


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def changes(config: str, run_name: str, context: str, datasets: dsl.Input[dsl.Dataset]) -> str:
    """Whether anything changed since a version got its verdict: "yes", or "no" and the run ends."""
    from pathlib import Path

    from components.registry.changes import run

    return run(config, run_name, context, Path(datasets.path))


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def register(
    config: str,
    run_name: str,
    context: str,
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    estimates: dsl.Input[dsl.Artifact],
    groups: dsl.Input[dsl.Artifact],
    adapters: dsl.Input[List[dsl.Model]],
    boosters: dsl.Input[List[dsl.Model]],
    weights: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
) -> str:
    """Register the ensemble as a model version; returns its number and whether it is new."""
    from pathlib import Path

    from components.registry.steps import register

    before = [Path(part.path) for part in (datasets, start, estimates, groups)]
    fanned = [[Path(part.path) for part in parts] for parts in (adapters, boosters)]
    return register(config, run_name, context, *before, *fanned, Path(weights.path), Path(evaluation.path))


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def promote(config: str, run_name: str, context: str, registered: str) -> str:
    """The gate: alias `champion` or not; returns the decision."""
    from components.registry.steps import promote_step

    return promote_step(config, run_name, context, registered)


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def close_run(config: str, run_name: str, last: str) -> None:
    """End MLflow's parent run, however the pipeline ended; one that went well has got to the step ``last``."""
    from components.registry.close_run import run

    run(config, run_name, last)
