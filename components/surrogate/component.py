"""The KFP component of `estimate`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import CPU


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def estimate(
    config: str,
    run_name: str,
    datasets: dsl.Input[dsl.Dataset],
    features: dsl.Input[List[dsl.Artifact]],
    estimates: dsl.Output[dsl.Artifact],
) -> None:
    """Estimate every subset; affinity matrix."""
    from pathlib import Path

    from components.surrogate.estimate import run

    run(config, run_name, Path(datasets.path), [Path(part.path) for part in features], Path(estimates.path))
