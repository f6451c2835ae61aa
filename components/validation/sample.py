"""The step `sample`: which subsets are fine-tuned for real, as jobs."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import UserError
from components.step import Step, read_references
from components.trials import seeds_of


def run(config: str, run_name: str, datasets: Path, estimates: Path, partition: Path, sample: Path) -> list[str]:
    """Choose the subsets and pass them on as ``sample``.

    Returns:
        The jobs for `fine_tune`, one JSON object a string: ``{"name", "datasets", "seeds"}``.

    Raises:
        UserError: there is only one dataset.
    """
    with Step("sample", config, run_name) as step:
        references, settings = read_references(datasets), step.config.validation
        names = list(references)
        if len(names) < 2:
            raise UserError("one dataset has no subsets to compare", remedy="validate a config with several datasets")
        affinity = step.load(read_references(estimates), "affinity")
        groups = step.load(read_references(partition), "partition").facts["groups"]
        inputs = {
            "order": names,
            "groups": groups,
            "affinity": affinity.digest,
            "validation": settings.model_dump(include={"subsets", "pairs", "partitions"}),
            "size": step.config.surrogate.subset_size,
            "seed": step.config.seed,
        }

        def write(folder: Path) -> dict[str, Any]:
            from components.validation.subsets import choose_sample

            chosen = choose_sample(
                names,
                groups,
                np.array(affinity.facts["matrix"]),
                size_share=step.config.surrogate.subset_size,
                subsets=settings.subsets,
                pairs=settings.pairs,
                partitions=settings.partitions,
                seed=step.config.seed,
            )
            return {**vars(chosen), "jobs": chosen.jobs()}

        subsets: dict[str, list[str]] = step.obtain("sample", "sample", inputs, write).facts["jobs"]
        step.say(f"{len(subsets)} subsets, {settings.seeds} fine-tunes each")
        step.pass_on(sample)
        seeds = seeds_of(step.config.seed, settings.seeds)
        return [json.dumps({"name": name, "datasets": inside, "seeds": seeds}) for name, inside in subsets.items()]
