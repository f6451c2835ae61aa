"""The KFP components of `sample` and `judge`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import CPU


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def sample(
    config: str,
    run_name: str,
    datasets: dsl.Input[dsl.Dataset],
    estimates: dsl.Input[dsl.Artifact],
    groups: dsl.Input[dsl.Artifact],
    subsets: dsl.Output[dsl.Artifact],
) -> List[str]:
    """Choose the subsets to fine-tune; returns the jobs."""
    from pathlib import Path

    from components.validation.sample import run

    return run(config, run_name, Path(datasets.path), Path(estimates.path), Path(groups.path), Path(subsets.path))


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def judge(
    config: str,
    run_name: str,
    context: str,
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    features: dsl.Input[List[dsl.Artifact]],
    estimates: dsl.Input[dsl.Artifact],
    subsets: dsl.Input[dsl.Artifact],
    linear: dsl.Input[dsl.Artifact],
    trials: dsl.Input[List[dsl.Artifact]],
    judgement: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    numbers: dsl.Output[dsl.Metrics],
) -> None:
    """Estimates against real fine-tunes; report."""
    from pathlib import Path

    from components.validation.judge import run

    fanned, real = [Path(part.path) for part in features], [Path(part.path) for part in trials]
    before = [Path(part.path) for part in (datasets, start)]
    after = [Path(part.path) for part in (estimates, subsets, linear)]
    written = [Path(part.path) for part in (judgement, report)]
    for name, value in run(config, run_name, context, *before, fanned, *after, real, *written).items():
        numbers.log_metric(name, value)
