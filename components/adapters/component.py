"""The KFP components of `train`, `fine_tune` and `boost`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import WORKER


@dsl.component(base_image=WORKER, packages_to_install=[], install_kfp_package=False)
def train(
    config: str,
    run_name: str,
    context: str,
    job: str,
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    adapter: dsl.Output[dsl.Model],
) -> None:
    """Train one adapter; its logits on every dataset."""
    from pathlib import Path

    from components.adapters.train import run

    run(config, run_name, context, Path(datasets.path), Path(start.path), job, Path(adapter.path))


@dsl.component(base_image=WORKER, packages_to_install=[], install_kfp_package=False)
def fine_tune(
    config: str,
    run_name: str,
    job: str,
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    trials: dsl.Output[dsl.Artifact],
) -> None:
    """Fine-tune on one subset, once a seed, only to see what it reaches."""
    from pathlib import Path

    from components.adapters.fine_tune import run

    run(config, run_name, Path(datasets.path), Path(start.path), job, Path(trials.path))


@dsl.component(base_image=WORKER, packages_to_install=[], install_kfp_package=False)
def boost(
    config: str,
    run_name: str,
    context: str,
    job: str,
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    features: dsl.Input[List[dsl.Artifact]],
    adapters: dsl.Input[List[dsl.Model]],
    boosters: dsl.Output[dsl.Model],
) -> None:
    """Boosters for one group; their logits on every dataset."""
    from pathlib import Path

    from components.adapters.boost import run

    parts, trained = [Path(part.path) for part in features], [Path(part.path) for part in adapters]
    run(config, run_name, context, Path(datasets.path), Path(start.path), parts, trained, job, Path(boosters.path))
