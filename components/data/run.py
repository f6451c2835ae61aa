"""The step `prepare`: every dataset read, checked, split and kept by content."""

import json
from math import ceil
from pathlib import Path

from components.artifacts import Artifact, digest_of
from components.config import DatasetConfig
from components.data.prepare import prepare
from components.errors import UserError
from components.prepared import PreparedDataset, write_prepared
from components.step import Step


def run(config: str, run_name: str, datasets: Path) -> list[str]:
    """Prepare all datasets and pass on one reference each, named after the dataset.

    Returns:
        The shards for `extract`: JSON lists of dataset names.

    Raises:
        UserError: with the problems of all datasets at once.
    """
    with Step("prepare", config, run_name) as step:
        problems: list[str] = []
        prepared: list[PreparedDataset] = []
        for done, settings in enumerate(step.config.datasets):
            try:
                prepared.append(_prepare(step, settings))
            except UserError as error:
                problems += [f"{settings.name}: {line}" for line in error.problems or (error.what,)]
            step.progress(done + 1, len(step.config.datasets), settings.name)
        if problems:
            raise UserError(
                "some datasets cannot be used",
                problems=tuple(problems),
                remedy="mend the rows, or set on_bad_rows: drop for the dataset",
            )
        for dataset in prepared:
            _keep(step, dataset)
        step.pass_on(datasets)
        return _shards([dataset.name for dataset in prepared], step.config.gradients.datasets_per_shard)


def _prepare(step: Step, settings: DatasetConfig) -> PreparedDataset:
    dataset = prepare(settings, step.config.storage, Path.cwd())
    dropped = sum(dataset.counts["dropped"].values())
    if dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.counts["dropped"].items())
        step.say(f"{dataset.name}: dropped {dropped} rows ({reasons})")
    return dataset


def _keep(step: Step, dataset: PreparedDataset) -> Artifact:
    """Keep a dataset under a key made of its content, which is not known before it has been read."""
    content = digest_of(
        {
            split: [part.row.tolist(), part.label.tolist(), part.fields, part.response]
            for split, part in dataset.splits.items()
        }
    )
    inputs = {
        "name": dataset.name,
        "content": content,
        "template": dataset.template,
        "labels": dataset.labels,
        "words": dataset.words,
        "metric": dataset.metric,
        "counts": dataset.counts,
    }
    return step.obtain(
        dataset.name,
        "dataset",
        inputs,
        lambda folder: {**write_prepared(dataset, folder), "entropy": dataset.entropy()},
    )


def _shards(names: list[str], most: int) -> list[str]:
    """At least two shards, so that two workers have something to do, and at most ``most`` datasets in each."""
    size = min(most, max(1, ceil(len(names) / 2)))
    return [json.dumps(names[start : start + size]) for start in range(0, len(names), size)]
