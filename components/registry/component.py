"""The KFP components of `open_run`, `changes`, `register`, `promote` and `close_run`, and those of batch scoring."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import CPU, WORKER


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
    servable: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
) -> str:
    """Register the ensemble as a model version; returns its number and whether it is new."""
    from pathlib import Path

    from components.registry.steps import register

    before = [Path(part.path) for part in (datasets, start, estimates, groups)]
    fanned = [[Path(part.path) for part in parts] for parts in (adapters, boosters)]
    after = [Path(part.path) for part in (weights, servable, evaluation)]
    return register(config, run_name, context, *before, *fanned, *after)


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


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def pin_version(config: str, job: str) -> str:
    """The scoring job with the version's number in the place of an alias, which may move meanwhile."""
    from components.registry.scoring import pinned_job

    return pinned_job(config, job)


@dsl.component(base_image=WORKER, packages_to_install=[], install_kfp_package=False)
def score(config: str, job: str, shard: str) -> None:
    """Score one shard of a file."""
    from components.registry.scoring import score_shard

    score_shard(config, job, shard)


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def gather(config: str, job: str) -> str:
    """Put the shards' answers together; returns how many records were answered and refused."""
    from components.registry.scoring import gather_shards

    return gather_shards(config, job)
