"""The KFP components of `select` and `confirm`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import CPU


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def select(
    config: str,
    run_name: str,
    datasets: dsl.Input[dsl.Dataset],
    features: dsl.Input[List[dsl.Artifact]],
    selection: dsl.Output[dsl.Artifact],
) -> List[str]:
    """Rank the datasets for the target; returns the jobs that would check it."""
    from pathlib import Path

    from components.selection.select import run

    return run(config, run_name, Path(datasets.path), [Path(part.path) for part in features], Path(selection.path))


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def confirm(
    config: str,
    run_name: str,
    context: str,
    datasets: dsl.Input[dsl.Dataset],
    selection: dsl.Input[dsl.Artifact],
    trials: dsl.Input[List[dsl.Artifact]],
    numbers: dsl.Output[dsl.Metrics],
) -> None:
    """What the sets really reach."""
    from pathlib import Path

    from components.selection.confirm import run

    real = [Path(part.path) for part in trials]
    for name, value in run(config, run_name, context, Path(datasets.path), Path(selection.path), real).items():
        numbers.log_metric(name, value)
