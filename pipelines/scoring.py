"""Batch scoring as a pipeline: shards of a file in as many pods, then one file of answers."""

import json
from collections.abc import Mapping
from pathlib import Path

from kfp import dsl

from components.config import RunConfig
from components.errors import UserError
from components.registry.component import gather, pin_version, score
from pipelines.cluster import compile_pipeline
from pipelines.ensemble import PARALLELISM


@dsl.pipeline(name="score-all")
def score_all(config: str, job: str, shards: list[str]) -> None:
    """Every shard of the job."""
    with dsl.ParallelFor(shards, parallelism=PARALLELISM) as shard:
        score(config=config, job=job, shard=shard).set_caching_options(False)


@dsl.pipeline(name="loraloom-scoring", description="Scores a file of records with a registered ensemble.")
def scoring_pipeline(config: str, job: str, shards: list[str]) -> None:
    """Score ``job`` (JSON: source, output, version, mode, dataset) in ``shards``: "0/3", "1/3", "2/3"."""
    pinned = pin_version(config=config, job=job).set_caching_options(False)
    scored = score_all(config=config, job=pinned.output, shards=shards).set_caching_options(False)
    gather(config=config, job=pinned.output).after(scored).set_caching_options(False)


def compile_scoring(config: RunConfig, job: Mapping[str, str], shards: int, output: Path) -> None:
    """Write the scoring pipeline as IR YAML to ``output``; job and shards are the defaults of its parameters.

    Raises:
        UserError: the config, or a file on this machine, cannot be used on a cluster.
    """
    if local := [what for what in ("source", "output") if not job[what].startswith("s3://")]:
        raise UserError(
            "pods do not see this machine's files",
            problems=tuple(f"{what}: {job[what]} is no s3:// address" for what in local),
            remedy="put the source into a bucket (aws s3 cp) and name s3:// addresses; or score it here",
        )
    numbered = [f"{shard}/{shards}" for shard in range(shards)]
    compile_pipeline(config, output, scoring_pipeline, job=json.dumps(dict(job)), shards=numbered)
