"""The KFP components of `open_run`, `register` and `promote`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def open_run(config: str, run_name: str) -> str:
    """Open MLflow's parent run; returns the run's context."""
    from components.registry.open_run import run

    return run(config, run_name)


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
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


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def promote(config: str, run_name: str, context: str, registered: str) -> str:
    """The gate: alias `champion` or not; returns the decision."""
    from components.registry.steps import promote_step

    return promote_step(config, run_name, context, registered)
