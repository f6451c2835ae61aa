"""The step `extract`: features of a shard of datasets, and the logits everything later starts from."""

import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from components.adapter_files import WEIGHTS
from components.artifacts import Artifact, key_of
from components.gradients.known_rows import Taken, known_rows, write_row_by_row
from components.gradients.row_progress import RowProgress
from components.inputs import BASE, START, outputs_digest, point_of, read_datasets
from components.label_logits import obtain_logits
from components.prepared import SPLITS, PreparedDataset, SplitName
from components.sampling import feature_index, feature_rows
from components.step import Step, read_references

if TYPE_CHECKING:
    from components.gradients.memory import Budget
    from components.on_demand import OnDemand

LOGITS: tuple[tuple[SplitName, str], ...] = (("train", START), ("validation", START), ("test", START), ("test", BASE))
HALF = 16  # digits of a key that say which features these are, and as many that say of which rows


def run(config: str, run_name: str, datasets: Path, start: Path, shard: str, features: Path) -> None:
    """Extract the datasets named in ``shard``, a JSON list.

    Passed on for each dataset: ``features/<name>`` (training and validation rows, gradients taken at the point), logits
    at theta* of the rows features were taken of and of the validation and test split, and logits of the bare base on
    the test split.
    """
    from components.gradients.memory import Budget
    from components.on_demand import OnDemand

    names = json.loads(shard)
    with Step("extract", config, run_name, part="+".join(names)[:60]) as step:
        references = read_references(datasets)
        prepared = read_datasets(step, {name: references[name] for name in names})
        begun = read_references(start)
        theta, point = step.load(begun, START), point_of(step, begun)
        work, budget = OnDemand(step), Budget(step.config.gradients.batch_tokens, step.say)
        rows = RowProgress(step, sum(_rows(step, dataset) for dataset in prepared.datasets))
        for dataset in prepared.datasets:
            _features(step, work, dataset, prepared.digests[dataset.name], point, budget, rows)
            _logits(step, work, dataset, theta, rows)
            _say_what_was_cut(step, dataset.name)
        rows.begin(0, "")
        step.pass_on(features)


def _rows(step: Step, dataset: PreparedDataset) -> int:
    """Rows of one dataset that go through the model: for their features, and for each of their logits."""
    index = _feature_index(step, dataset)
    logits = sum(len(_logits_index(step, dataset, split)) for split, _ in LOGITS)
    return sum(map(len, index.values())) + logits


def _feature_index(step: Step, dataset: PreparedDataset) -> dict[SplitName, np.ndarray]:
    splits: tuple[SplitName, ...] = ("train", "validation")
    return {split: feature_index(step.config, dataset, split) for split in splits}


def _logits_index(step: Step, dataset: PreparedDataset, split: SplitName) -> np.ndarray:
    """Of training rows only those that features are taken of."""
    return feature_index(step.config, dataset, split) if split == "train" else np.arange(len(dataset.splits[split].row))


def _features(
    step: Step,
    work: "OnDemand",
    dataset: PreparedDataset,
    digest: str,
    point: Artifact,
    budget: "Budget",
    rows: RowProgress,
) -> None:
    settings, seed = step.config.gradients, step.config.seed
    taken = {
        "outputs": outputs_digest(step, point.digest),
        "dim": settings.dim,
        "projection": settings.projection,
        "seed": seed,
    }
    inputs = {**taken, "dataset": digest, "rows": feature_rows(step.config, len(dataset.splits["train"].row))}
    lineage = {**taken, "name": dataset.name, "rendering": dataset.rendering}
    shelf = key_of("features", lineage)[:-HALF]
    key = f"{shelf}-{key_of('features', inputs)[-HALF:]}"
    job = f"checkpoints/{key.rpartition('/')[2]}"
    index = _feature_index(step, dataset)
    rows.begin(sum(map(len, index.values())), dataset.name)

    def compute(split: SplitName, at: np.ndarray) -> Taken:
        from components.gradients.projection import Projection
        from components.gradients.shards import sharded_gradients

        model = work.adapter(point.folder)
        projection = Projection(settings.dim, seed, settings.projection, work.base.device)
        examples = work.examples(dataset, split).take(at)
        tokens = budget.tokens(model, work.base, examples, settings.dim)
        cost = work.cost(model)
        flops = np.array([cost.gradients(len(ids), len(ids) ** 2) for ids in examples.ids], dtype=np.int64)
        step.flops += int(flops.sum())
        table = sharded_gradients(
            step, f"{job}/{split}", model, work.base, examples, projection, tokens, passed=rows.passed
        )
        return Taken(table, flops)

    def write(folder: Path) -> dict[str, Any]:
        look_up = partial(known_rows, step.store, f"{shelf}-")
        facts = write_row_by_row(folder, dataset, index, look_up, compute)
        return {**facts, "truncated": _truncated(work, dataset), "parameters": _size(point)}

    label = f"features/{dataset.name}"
    step.obtain(label, "features", inputs, write, key=key)
    if label in step.fresh:
        for left in list(step.store.keys(f"{job}/")):
            step.store.delete(left)


def _size(adapter: Artifact) -> int:
    """Weights of the adapter; told by the file's header, where nothing has to be loaded otherwise."""
    with safe_open(adapter.folder / WEIGHTS, "np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping


def _truncated(work: "OnDemand", dataset: PreparedDataset) -> dict[str, int]:
    """How many texts of each split are longer than the model takes; splits without any are left out."""
    counts = {split: work.examples(dataset, split).truncated for split in SPLITS}
    return {split: count for split, count in counts.items() if count}


def _say_what_was_cut(step: Step, name: str) -> None:
    """Also where the features are reused: the texts are cut all the same."""
    counts = step.made[f"features/{name}"].facts.get("truncated", {})
    told = ", ".join(f"{counts[split]} of {split}" for split in SPLITS if split in counts)
    step.say_if(f"{name}: texts longer than model.max_length were cut ({told})" if told else "")


def _logits(step: Step, work: "OnDemand", dataset: PreparedDataset, theta: Artifact, rows: RowProgress) -> None:
    for split, model in LOGITS:
        folder = theta.folder if model == START else None
        index = _logits_index(step, dataset, split)
        rows.begin(len(index), f"{dataset.name}: logits")
        obtain_logits(
            step,
            outputs_digest(step, theta.digest if model == START else None),
            dataset,
            split,
            work.logits(folder, dataset, split, rows.passed),
            model=model,
            index=index,
        )
