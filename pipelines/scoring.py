"""Batch scoring as a pipeline: shards of a file in as many pods, then one file of answers."""

from kfp import dsl

from components.registry.component import gather, pin_version, score
from pipelines.ensemble import PARALLELISM


@dsl.pipeline(name="score-all")
def score_all(config: str, job: str, shards: list[str]) -> None:
    """Every shard of the job."""
    with dsl.ParallelFor(shards, parallelism=PARALLELISM) as shard:
        score(config=config, job=job, shard=shard).set_caching_options(False)


@dsl.pipeline(name="loraloom-scoring", description="Scores a file of records with a registered ensemble.")
def scoring_pipeline(config: str, job: str, shards: list[str] = ["0/1"]) -> None:  # noqa: B006 - kfp copies it
    """Score ``job`` (JSON: source, output, version, mode, dataset) in ``shards``: "0/3", "1/3", "2/3"."""
    pinned = pin_version(config=config, job=job).set_caching_options(False)
    scored = score_all(config=config, job=pinned.output, shards=shards).set_caching_options(False)
    gather(config=config, job=pinned.output).after(scored).set_caching_options(False)
