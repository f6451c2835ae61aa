"""The pipeline: from datasets to a registered ensemble. One graph for a laptop and for a cluster.

Loops sit in nested pipelines: in a loop at the top level KFP's local runner replaces outputs of earlier tasks by the
loop's item. Config and context travel as JSON strings, because numbers inside dictionaries arrive as floats. KFP's
cache is off everywhere: steps find finished work by content address themselves.
However a pipeline ends, `close_run` comes last.
"""

import os
from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.adapters.component import boost, train
from components.data.component import prepare
from components.ensemble.component import evaluate, weigh
from components.gradients.component import extract, warm_start
from components.partition.component import partition
from components.registry.component import changes, close_run, open_run, promote, register
from components.serving.component import servable
from components.surrogate.component import estimate

# Members of a fan-out at one time; 0: as many as there is room for. On one machine with one GPU it is 1.
PARALLELISM = int(os.environ.get("LORALOOM_PARALLELISM", "0"))


@dsl.pipeline(name="extract-all")
def extract_all(
    config: str, run_name: str, shards: List[str], datasets: dsl.Input[dsl.Dataset], start: dsl.Input[dsl.Model]
) -> List[dsl.Artifact]:
    """Features of every shard."""
    with dsl.ParallelFor(shards, parallelism=PARALLELISM) as shard:
        task = extract(config=config, run_name=run_name, shard=shard, datasets=datasets, start=start)
        task.set_caching_options(False)
    return dsl.Collected(task.outputs["features"])


@dsl.pipeline(name="train-all")
def train_all(
    config: str,
    run_name: str,
    context: str,
    jobs: List[str],
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
) -> List[dsl.Model]:
    """An adapter for every group and baseline."""
    with dsl.ParallelFor(jobs, parallelism=PARALLELISM) as job:
        task = train(config=config, run_name=run_name, context=context, job=job, datasets=datasets, start=start)
        task.set_caching_options(False)
    return dsl.Collected(task.outputs["adapter"])


@dsl.pipeline(name="boost-all")
def boost_all(
    config: str,
    run_name: str,
    context: str,
    jobs: List[str],
    datasets: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    features: dsl.Input[List[dsl.Artifact]],
    adapters: dsl.Input[List[dsl.Model]],
) -> List[dsl.Model]:
    """Boosters for every group."""
    with dsl.ParallelFor(jobs, parallelism=PARALLELISM) as job:
        task = boost(
            config=config, run_name=run_name, context=context, job=job,
            datasets=datasets, start=start, features=features, adapters=adapters,
        )  # fmt: skip
        task.set_caching_options(False)
    return dsl.Collected(task.outputs["boosters"])


def open_and_prepare(run: dict[str, str]) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
    """The tasks that everything begins with: the tracked run, and the datasets."""
    opened, prepared = open_run(**run), prepare(**run)
    for task in (opened, prepared):
        task.set_caching_options(False)
    return opened, prepared


def understand(
    run: dict[str, str], opened: dsl.PipelineTask, prepared: dsl.PipelineTask
) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
    """The start, and the features of every dataset there."""
    datasets = prepared.outputs["datasets"]
    start = warm_start(**run, context=opened.output, datasets=datasets)
    features = extract_all(**run, shards=prepared.outputs["Output"], datasets=datasets, start=start.outputs["start"])
    for task in (start, features):
        task.set_caching_options(False)
    return start, features


def plan_steps(
    run: dict[str, str], opened: dsl.PipelineTask, prepared: dsl.PipelineTask
) -> tuple[dsl.PipelineTask, ...]:
    """From the datasets to the partition: start, features, estimates, partition."""
    datasets = prepared.outputs["datasets"]
    start, features = understand(run, opened, prepared)
    estimates = estimate(**run, datasets=datasets, features=features.output)
    planned = partition(
        **run, context=opened.output, datasets=datasets, features=features.output,
        estimates=estimates.outputs["estimates"],
    )  # fmt: skip
    for task in (estimates, planned):
        task.set_caching_options(False)
    return start, features, estimates, planned


def _ensemble(run: dict[str, str], opened: dsl.PipelineTask, prepared: dsl.PipelineTask) -> None:
    """From the datasets to the verdict."""
    start, features, estimates, planned = plan_steps(run, opened, prepared)
    tracked = {**run, "context": opened.output}
    rows, theta, groups = prepared.outputs["datasets"], start.outputs["start"], planned.outputs["groups"]
    trained = train_all(**tracked, jobs=planned.outputs["jobs"], datasets=rows, start=theta)
    boosted = boost_all(
        **tracked, jobs=planned.outputs["boosted"], datasets=rows, start=theta,
        features=features.output, adapters=trained.output,
    )  # fmt: skip
    parts = {"adapters": trained.output, "boosters": boosted.output}
    weighed = weigh(**run, datasets=rows, groups=groups, features=features.output, **parts)
    weights = weighed.outputs["weights"]
    served = servable(
        **run, datasets=rows, start=theta, groups=groups, features=features.output, **parts, weights=weights
    )
    judged = evaluate(**tracked, datasets=rows, groups=groups, features=features.output, **parts, weights=weights)
    registered = register(
        **tracked, datasets=rows, start=theta, estimates=estimates.outputs["estimates"], groups=groups, **parts,
        weights=weights, servable=served.outputs["servable"], evaluation=judged.outputs["evaluation"],
    )  # fmt: skip
    promoted = promote(**tracked, registered=registered.output)
    for task in (trained, boosted, weighed, served, judged, registered, promoted):
        task.set_caching_options(False)


@dsl.pipeline(name="loraloom-plan", description="Which datasets belong together: everything up to the partition.")
def plan_pipeline(config: str, run_name: str) -> None:
    """The pipeline up to the partition."""
    run = {"config": config, "run_name": run_name}
    closed = close_run(**run, last="partition")
    closed.set_caching_options(False)
    with dsl.ExitHandler(closed):
        plan_steps(run, *open_and_prepare(run))


@dsl.pipeline(name="loraloom", description="From many datasets to a registered ensemble of QLoRA adapters.")
def ensemble_pipeline(config: str, run_name: str) -> None:
    """The whole pipeline; where nothing changed since a version got its verdict, only its beginning."""
    run = {"config": config, "run_name": run_name}
    closed = close_run(**run, last="promote")
    closed.set_caching_options(False)
    with dsl.ExitHandler(closed):
        opened, prepared = open_and_prepare(run)
        changed = changes(**run, context=opened.output, datasets=prepared.outputs["datasets"])
        changed.set_caching_options(False)
        with dsl.If(changed.output == "yes", name="changed"):
            _ensemble(run, opened, prepared)
