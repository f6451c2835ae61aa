"""The KFP component of `servable`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import WORKER


@dsl.component(base_image=WORKER, packages_to_install=[], install_kfp_package=False)
def servable(
    config: str,
    run_name: str,
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    groups: dsl.Input[dsl.Artifact],
    features: dsl.Input[List[dsl.Artifact]],
    adapters: dsl.Input[List[dsl.Model]],
    boosters: dsl.Input[List[dsl.Model]],
    weights: dsl.Input[dsl.Artifact],
    servable: dsl.Output[dsl.Model],
) -> None:
    """Merged adapters, their disagreement with the ensemble, and the router."""
    from pathlib import Path

    from components.serving.servable import run

    fanned = [[Path(part.path) for part in parts] for parts in (features, adapters, boosters)]
    single = [Path(part.path) for part in (datasets, start, groups)]
    run(config, run_name, *single, *fanned, Path(weights.path), Path(servable.path))
