"""The step `judge`: estimates against real fine-tunes, as numbers, figures, a page and plain words."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

from components import tracking
from components.artifacts import Artifact
from components.group_estimator import estimated_from, group_estimator
from components.inputs import POINT, START, Prepared, features_of, point_of, read_datasets, read_split
from components.step import Step, read_references
from components.tables import mean_pulls
from components.trials import Trials, read_trials
from components.validation.verdict import rank_of, verdict

if TYPE_CHECKING:
    from components.intervals import Interval
    from components.validation.agreement import Cells

AFFINITY_TABLE, EMBEDDINGS = "estimates.safetensors", "embeddings.safetensors"
LOSSES = ("surrogate", "shifted", "constant")  # predictors whose size means something
SIMILARITIES = ("features", "embeddings")


def run(
    config: str,
    run_name: str,
    context: str,
    datasets: Path,
    start: Path,
    features: list[Path],
    estimates: Path,
    sample: Path,
    linearity: Path,
    trials: list[Path],
    judgement: Path,
    report: Path,
) -> dict[str, float]:
    """Compare; pass on ``validation`` (the numbers) and write the report.

    Returns:
        The main numbers, for the pipeline's metrics.
    """
    with Step("judge", config, run_name) as step:
        prepared = read_datasets(step, read_references(datasets))
        found = features_of(step, read_references(features), prepared.names)
        paths = {START: start, "affinity": estimates, "sample": sample, "linearity": linearity}
        singles = {label: step.load(read_references(path), label) for label, path in paths.items()}
        singles[POINT] = point_of(step, read_references(start))
        references, settings = read_references(trials), step.config.validation
        inputs = {
            "trials": {label: key for label, key in sorted(references.items()) if label.startswith("trial/")},
            **estimated_from(step.config, prepared.digests, found),
            "parts": {name: artifact.key for name, artifact in singles.items()},
            "seeds": settings.seeds,
            "bootstrap": settings.bootstrap,
        }

        def write(folder: Path) -> dict[str, Any]:
            jobs = singles["sample"].facts["jobs"]
            real = read_trials(step, references, prepared.names, jobs, settings.seeds)
            facts = judged(step, prepared, found, singles, real)
            (folder / "validation.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
            return facts

        facts = step.obtain("validation", "validation", inputs, write).facts
        step.facts = {"validation": facts}
        _publish(step, json.loads(context)["run_id"], facts, report)
        step.pass_on(judgement)
        return main_numbers(facts)


def judged(
    step: Step, prepared: Prepared, features: dict[str, Artifact], singles: dict[str, Artifact], trials: Trials
) -> dict[str, Any]:
    """Everything that the validation found, JSON-able."""
    from components.validation.cost import compare_costs
    from components.validation.partitions import compare_partitions

    estimated = group_estimator(step.config, prepared, features).solve(trials.members).loss[0]
    entropy = np.array([dataset.entropy() for dataset in prepared.datasets])
    embedding = load_file(singles["linearity"].folder / EMBEDDINGS)["embedding"]
    cells = _cells(trials, estimated, entropy, read_split(features, "train"), embedding)
    jobs, chosen = singles["sample"].facts["jobs"], singles["sample"].facts
    random = np.array([inside in chosen["random"] for inside in jobs.values()])
    company, drawn = trials.members.sum(axis=1) > 1, cells.of(random)
    partitions = compare_partitions(chosen["partitions"], prepared.names, trials, estimated, entropy)
    sizes = load_file(singles["affinity"].folder / AFFINITY_TABLE)["members"].sum(axis=1)
    begun = {singles[label].key: singles[label] for label in (START, POINT)}  # one and the same without a look-ahead
    facts: dict[str, Any] = {
        "datasets": prepared.names,
        "seeds": trials.seeds,
        "subset_size": len(chosen["random"][0]),
        "counts": {"random": int(random.sum()), "pairs": len(chosen["pairs"]), "subsets": len(jobs)},
        "overall": _overall(step, drawn),
        "every_subset": _overall(step, cells.of(company)),
        "by_dataset": {name: _of_dataset(step, drawn, i) for i, name in enumerate(prepared.names)},
        "cells": _listed(cells, random, list(jobs), prepared.names),
        "subsets": jobs,
        "groups": chosen["partitions"],
        "partitions": [asdict(one) for one in partitions],
        "linearity": _linearity(singles["linearity"].facts, trials),
        "cost": compare_costs([*begun.values()], list(features.values()), singles["affinity"], sizes, trials),
    }
    return {**facts, "verdict": verdict(facts)}


def _cells(trials: Trials, estimated: np.ndarray, entropy: np.ndarray, train: Any, embedding: np.ndarray) -> "Cells":
    from components.validation import predictors
    from components.validation.agreement import Cells

    members, true, predicted = trials.members, trials.validation / entropy, estimated / entropy
    return Cells(
        members,
        true,
        {
            "surrogate": predicted,
            "shifted": predictors.shifted(np.where(members, predicted, 0.0), true, members),
            "constant": predictors.constant(true, members),
            "features": predictors.by_similarity(mean_pulls(train), members),
            "embeddings": predictors.by_similarity(embedding, members),
        },
    )


def _overall(step: Step, cells: "Cells") -> dict[str, Any]:
    """Reliability, and each predictor's agreement and relative error, over these subsets."""
    from components.validation.agreement import (
        advantage,
        agreement,
        noise_error,
        relative_error,
        reliability,
        with_interval,
    )

    how = {"resamples": step.config.validation.bootstrap, "seed": step.config.seed}
    predictors: dict[str, dict[str, Any]] = {}
    for done, name in enumerate(cells.predicted):
        predictors[name] = {kind: _told(one) for kind, one in vars(agreement(cells, name, **how)).items()}
        if name in LOSSES:
            off = with_interval(cells, partial(relative_error, predictor=name), **how)
            predictors[name]["relative_error"] = _told(off)
        step.progress(done + 1, len(cells.predicted), name)
    return {
        "reliability": _told(with_interval(cells, reliability, **how)),
        "noise_error": _told(with_interval(cells, noise_error, **how)),
        "predictors": predictors,
        "advantages": {other: _told(advantage(cells, "surrogate", other, **how)) for other in SIMILARITIES},
    }


def _of_dataset(step: Step, cells: "Cells", i: int) -> dict[str, Any]:
    """What can be said of one dataset, over the subsets that hold it."""
    from components.validation.agreement import agreement, relative_error, reliability, with_interval

    how = {"resamples": step.config.validation.bootstrap, "seed": step.config.seed}
    own = cells.of_dataset(i)
    share = _told(with_interval(own, reliability, **how))
    found = agreement(own, "surrogate", **how)
    pearson = _told(found.pearson)
    return {
        "subsets": len(own.members),
        "reliability": share,
        "pearson": pearson,
        "spearman": _told(found.spearman),
        "corrected_pearson": _told(found.corrected_pearson),
        "relative_error": relative_error(own, "surrogate"),
        "rank": rank_of(share, pearson),
    }


def _listed(cells: "Cells", random: np.ndarray, jobs: list[str], names: list[str]) -> list[dict[str, Any]]:
    """Every (subset, dataset), for the figure and for whoever wants to compute something else."""
    return [
        {
            "subset": jobs[k],
            "dataset": names[i],
            "random": bool(random[k]),
            "true": cells.true[k, :, i].tolist(),
            **{name: float(values[k, i]) for name, values in cells.predicted.items()},
        }
        for k, i in np.argwhere(cells.members).tolist()
    ]


def _linearity(facts: Mapping[str, Any], trials: Trials) -> dict[str, Any]:
    """Errors by distance: mean and spread over subsets, and how far solutions and fine-tunes really are."""
    mean = []
    for at, distance in enumerate(facts["distances"]):
        entry: dict[str, Any] = {"distance": distance}
        for kind in ("unprojected", "projected"):
            known = [one["errors"][at][kind] for one in facts["subsets"]]
            entry[kind] = {key: float(np.mean([one[key] for one in known])) for key in known[0]}
            entry[kind] |= {f"{key}_spread": float(np.std([one[key] for one in known])) for key in known[0]}
        mean.append(entry)
    return {
        "mean": mean,
        "subsets": facts["subsets"],
        "solution_distance": float(np.mean([one["solution_distance"] for one in facts["subsets"]])),
        "trained_distance": float(trials.distance.mean()),
    }


def main_numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    """The numbers to be found again in MLflow and in the pipeline's metrics."""
    numbers: dict[str, float | None] = {"ratio_published": facts["cost"]["ratio_published"]}
    if facts["overall"]["reliability"] is not None:
        numbers["reliability"] = facts["overall"]["reliability"]["value"]
    if facts["overall"]["noise_error"] is not None:
        numbers["noise_error"] = facts["overall"]["noise_error"]["value"]
    for name, found in facts["overall"]["predictors"].items():
        numbers |= {f"{name}.{kind}": one["value"] for kind, one in found.items() if one is not None}
    numbers |= {f"partition.{one['name']}.test_loss": one["test"] for one in facts["partitions"]}
    for one in facts["linearity"]["mean"]:
        numbers[f"first_order.{100 * one['distance']:g}_percent"] = one["unprojected"]["relative"]
    return {f"validation.{key}": float(value) for key, value in numbers.items() if value is not None}


def _publish(step: Step, run_id: str, facts: dict[str, Any], report: Path) -> None:
    from components.summary import assemble
    from components.validation.figures import draw
    from components.validation.report import render

    summary = assemble(step.store, step.run_name, step.config) | {"validation": facts}
    figures = draw(facts)
    page = render(summary, figures)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(page)
    client = tracking.connect(str(step.config.tracking.uri))
    tracking.log_metrics(client, run_id, main_numbers(facts))
    client.log_text(run_id, page, "validation.html")
    client.log_dict(run_id, facts, "validation.json")
    for name, image in figures.items():
        tracking.log_bytes(client, run_id, image.png, f"figures/{name}.png")


def _told(one: "Interval | None") -> dict[str, float] | None:
    return None if one is None else asdict(one)
