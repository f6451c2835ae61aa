"""The KFP component of `partition`."""

from typing import List, NamedTuple  # kfp reads annotations of its own

from kfp import dsl

from components.image import CPU


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def partition(
    config: str,
    run_name: str,
    context: str,
    datasets: dsl.Input[dsl.Dataset],
    features: dsl.Input[List[dsl.Artifact]],
    estimates: dsl.Input[dsl.Artifact],
    groups: dsl.Output[dsl.Artifact],
) -> NamedTuple("Jobs", [("jobs", List[str]), ("boosted", List[str])]):
    """Choose the groups; returns the training jobs, and those of them that are groups."""
    import json
    from pathlib import Path

    from components.members import is_group
    from components.partition.run import run

    parts = [Path(part.path) for part in features]
    jobs = run(config, run_name, context, Path(datasets.path), parts, Path(estimates.path), Path(groups.path))
    return jobs, [job for job in jobs if is_group(json.loads(job)["name"])]
