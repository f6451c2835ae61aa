"""The KFP components of `weigh` and `evaluate`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import CPU


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def weigh(
    config: str,
    run_name: str,
    datasets: dsl.Input[dsl.Dataset],
    groups: dsl.Input[dsl.Artifact],
    features: dsl.Input[List[dsl.Artifact]],
    adapters: dsl.Input[List[dsl.Model]],
    boosters: dsl.Input[List[dsl.Model]],
    weights: dsl.Output[dsl.Artifact],
) -> None:
    """Fit W on validation logits."""
    from pathlib import Path

    from components.ensemble.weigh import run

    fanned = [[Path(part.path) for part in parts] for parts in (features, adapters, boosters)]
    run(config, run_name, Path(datasets.path), Path(groups.path), *fanned, Path(weights.path))


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def evaluate(
    config: str,
    run_name: str,
    context: str,
    datasets: dsl.Input[dsl.Dataset],
    groups: dsl.Input[dsl.Artifact],
    features: dsl.Input[List[dsl.Artifact]],
    adapters: dsl.Input[List[dsl.Model]],
    boosters: dsl.Input[List[dsl.Model]],
    weights: dsl.Input[dsl.Artifact],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    averages: dsl.Output[dsl.Metrics],
) -> None:
    """Test metrics of every method, cost, report."""
    from pathlib import Path

    from components.ensemble.evaluate import run

    fanned = [[Path(part.path) for part in parts] for parts in (features, adapters, boosters)]
    single = [Path(part.path) for part in (weights, evaluation, report)]
    found = run(config, run_name, context, Path(datasets.path), Path(groups.path), *fanned, *single)
    for method, value in found.items():
        averages.log_metric(method, value)
