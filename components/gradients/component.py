"""The KFP components of `warm_start`, `extract` and `linearity`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import WORKER


@dsl.component(base_image=WORKER, packages_to_install=[], install_kfp_package=False)
def warm_start(
    config: str, run_name: str, context: str, datasets: dsl.Input[dsl.Dataset], start: dsl.Output[dsl.Model]
) -> None:
    """Find or make theta*, and the point where gradients are taken."""
    from pathlib import Path

    from components.gradients.warm_start import run

    run(config, run_name, context, Path(datasets.path), Path(start.path))


@dsl.component(base_image=WORKER, packages_to_install=[], install_kfp_package=False)
def extract(
    config: str,
    run_name: str,
    shard: str,
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    features: dsl.Output[dsl.Artifact],
) -> None:
    """Features of a shard of datasets, and the logits of base and theta*."""
    from pathlib import Path

    from components.gradients.extract import run

    run(config, run_name, Path(datasets.path), Path(start.path), shard, Path(features.path))


@dsl.component(base_image=WORKER, packages_to_install=[], install_kfp_package=False)
def linearity(
    config: str,
    run_name: str,
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    features: dsl.Input[List[dsl.Artifact]],
    groups: dsl.Input[dsl.Artifact],
    linear: dsl.Output[dsl.Artifact],
) -> None:
    """How far from its point the first-order model holds."""
    from pathlib import Path

    from components.gradients.linearity import run

    parts = [Path(part.path) for part in features]
    run(config, run_name, Path(datasets.path), Path(start.path), parts, Path(groups.path), Path(linear.path))
