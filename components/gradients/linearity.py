"""The step `linearity`: how far from its point the first-order model holds, measured on the very model; and embeddings.

For the chosen groups and for all datasets together the surrogate is solved as `estimate` does, its solution is turned
into the step in the adapter's weights that it stands for (``solution_step.py``), and validation rows are looked at on
the way. The datasets' mean embeddings are kept for a comparison that knows nothing of gradients.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from components.artifacts import Artifact
from components.gradients.solution_step import solution_step
from components.group_estimator import estimated_from, group_estimator
from components.inputs import Prepared, features_of, outputs_digest, point_of, read_datasets
from components.sampling import sample_rows
from components.step import Step, read_references
from components.tables import Features, read_features

if TYPE_CHECKING:
    from peft import PeftModel

    from components.estimator import GroupEstimator
    from components.examples import Examples
    from components.on_demand import OnDemand

EMBEDDINGS = "embeddings.safetensors"
MOST_SUBSETS = 6  # the largest groups, and all datasets
ROWS = 64  # validation rows a dataset that margins are compared on, training rows that embeddings are means of


def run(
    config: str, run_name: str, datasets: Path, start: Path, features: list[Path], partition: Path, linearity: Path
) -> None:
    """Measure the first-order error; pass on ``linearity``: errors by subset and distance, mean embeddings."""
    from components.on_demand import OnDemand

    with Step("linearity", config, run_name) as step:
        prepared = read_datasets(step, read_references(datasets))
        point = point_of(step, read_references(start))
        found = features_of(step, read_references(features), prepared.names)
        groups: list[list[str]] = step.load(read_references(partition), "partition").facts["groups"]
        every = sorted(groups, key=len, reverse=True)[: MOST_SUBSETS - 1]
        subsets = every + [prepared.names] * (prepared.names not in every)
        inputs = {
            **estimated_from(step.config, prepared.digests, found),
            "outputs": outputs_digest(step, point.digest),
            "subsets": subsets,
            "distances": step.config.validation.distances,
        }
        step.obtain(
            "linearity",
            "linearity",
            inputs,
            lambda folder: _write(step, OnDemand(step), prepared, point, found, subsets, folder),
        )
        step.pass_on(linearity)


def _write(
    step: Step,
    work: "OnDemand",
    prepared: Prepared,
    point: Artifact,
    found: dict[str, Artifact],
    subsets: list[list[str]],
    folder: Path,
) -> dict[str, Any]:
    from components.gradients.embeddings import mean_embedding

    model = work.trainable(point.folder)
    tables = {
        split: {name: read_features(artifact.folder, split) for name, artifact in found.items()}
        for split in ("train", "validation")
    }
    estimator, measured = group_estimator(step.config, prepared, found), []
    for done, names in enumerate(subsets):
        measured.append(_measured(step, work, model, prepared, estimator, tables, names))
        step.progress(done + 1, len(subsets), ", ".join(names))
    means = [
        mean_embedding(model, work.base, _some(step, work.examples(dataset, "train"))) for dataset in prepared.datasets
    ]
    save_file({"embedding": np.stack(means)}, folder / EMBEDDINGS)
    return {"datasets": prepared.names, "distances": step.config.validation.distances, "subsets": measured}


def _measured(
    step: Step,
    work: "OnDemand",
    model: "PeftModel",
    prepared: Prepared,
    estimator: "GroupEstimator",
    tables: dict[str, dict[str, Features]],
    names: list[str],
) -> dict[str, Any]:
    """Errors for the solution of one subset at every distance."""
    from components.gradients.first_order import Ruler, derivatives, errors, moved, moved_margins

    tokens = step.config.gradients.batch_tokens
    weights, change = solution_step(work, model, prepared, estimator, tables["train"], names, tokens)
    held_out = [work.examples(prepared[name], "validation", tables["validation"][name].row) for name in names]
    shown = [_some(step, part) for part in held_out]
    linear = [derivatives(model, work.base, part, change, tokens) for part in shown]
    before, slope = (np.concatenate([part[k] for part in linear]) for k in (0, 1))
    projected = np.concatenate(
        [_projected(tables["validation"][name], part, weights) for name, part in zip(names, shown, strict=True)]
    )
    lora = step.config.lora
    ruler, at = Ruler(model, work.base, change, lora.alpha / lora.rank), []
    for distance in step.config.validation.distances:
        times = ruler.times(distance)
        with moved(model, change, times):
            actual = moved_margins(model, work.base, shown, tokens)
        kinds = (("unprojected", slope), ("projected", projected))
        told = {kind: asdict(errors(before + times * g, actual, before)) for kind, g in kinds}
        at.append({"distance": distance, "times": times, **told})
    return {"datasets": names, "solution_distance": ruler.distance(1.0), "rows": len(before), "errors": at}


def _projected(table: Features, shown: "Examples", weights: np.ndarray) -> np.ndarray:
    """``g_i . w`` of the rows shown, by the stored features, [M]."""
    place = {int(row): i for i, row in enumerate(table.row)}
    return table.features[[place[int(row)] for row in shown.row]].astype(np.float64) @ weights


def _some(step: Step, examples: "Examples") -> "Examples":
    return examples.take(sample_rows(examples.row, ROWS, step.config.seed))
