"""The step `evaluate`: every method on the test rows, what it cost, and the report."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from components import tracking
from components.adapter_log import dataset_use
from components.alerts import alert
from components.artifacts import Artifact, find, load
from components.drift import label_shares, measure, warnings
from components.ensemble.champion import against_champion
from components.ensemble.compare import compare, told
from components.ensemble.figures import draw_figures
from components.ensemble.metrics import average, intervals, scored_tables
from components.ensemble.report import render_report
from components.ensemble_logits import ensemble_logits, has_logits, member_logits, start_logits
from components.inputs import BASE, Prepared, read_datasets
from components.label_logits import passed_logits
from components.members import GROUP, MULTITASK, alone, members_of, own_group
from components.reconnect import reconnect
from components.step import Step, read_records, read_references
from components.summary import assemble
from components.tables import Logits, write_logits

METHODS = ("base", "start", "multitask", "per_dataset", "group", "ensemble")
Predictions = dict[str, dict[str, Logits]]  # method -> dataset -> test logits


def run(
    config: str,
    run_name: str,
    context: str,
    datasets: Path,
    partition: Path,
    features: list[Path],
    adapters: list[Path],
    boosters: list[Path],
    weights: Path,
    evaluation: Path,
    report: Path,
) -> dict[str, float]:
    """Evaluate; pass on ``evaluation`` (summary, test logits of the ensemble, report, figures) and write the report.

    Returns:
        The averages over datasets by method, for the pipeline's metrics.
    """
    with Step("evaluate", config, run_name) as step:
        prepared = read_datasets(step, read_references(datasets))
        references = read_references(features) | read_references(adapters) | read_references(boosters)
        groups: list[list[str]] = step.load(read_references(partition), "partition").facts["groups"]
        weighed = step.load(read_references(weights), "weights")
        champion = json.loads(context)["champion"]
        inputs = _inputs(step, prepared, references, groups, weighed, champion)

        def write(folder: Path) -> dict[str, Any]:
            predictions = _predictions(step, references, prepared, groups, weighed)
            for name, table in predictions["ensemble"].items():
                write_logits(folder, name, table)
            shares = {dataset.name: label_shares(dataset) for dataset in prepared.datasets}
            kept = {"features": inputs["features"], "label_shares": shares}  # what the next run measures drift from
            return _evaluated(step, prepared, predictions, champion) | kept

        made = step.obtain("evaluation", "evaluation", inputs, write)
        step.facts = {"evaluation": made.facts, "drift": _drift(step, champion, made)}
        _publish(step, json.loads(context)["run_id"], prepared, made.facts, report)
        step.pass_on(evaluation)
        return {method: made.facts["average"][method]["metric"]["value"] for method in made.facts["methods"]}


def _inputs(
    step: Step,
    prepared: Prepared,
    references: Mapping[str, str],
    groups: list[list[str]],
    weighed: Artifact,
    champion: Mapping[str, Any],
) -> dict[str, Any]:
    """What an evaluation is made of."""
    used = {label: key for label, key in references.items() if label.startswith("logits/") and label.endswith("/test")}
    return {
        "logits": dict(sorted(used.items())),
        "weights": weighed.digest,
        "shrinkage": step.config.boosting.shrinkage,
        "champion": champion.get("predictions"),
        "features": {name: references[f"features/{name}"] for name in prepared.names},
        "datasets": prepared.digests,
        "groups": groups,
        "baselines": step.config.ensemble.baselines,
        "resamples": step.config.ensemble.bootstrap,
        "metrics": {dataset.name: dataset.metric for dataset in prepared.datasets},
        "seed": step.config.seed,
    }


def _predictions(
    step: Step, references: dict[str, str], prepared: Prepared, groups: list[list[str]], weighed: Artifact
) -> Predictions:
    """Test logits by method and dataset."""
    out: Predictions = {method: {} for method in METHODS}
    members = members_of(groups, step.config.ensemble.baselines)
    for dataset in prepared.datasets:
        name = dataset.name
        start = start_logits(step, references, name, "test")
        stacked = np.stack([member_logits(step, references, member, name, "test") for member in members])
        own = list(members).index(own_group(members, name))
        answered = weighed.facts["rows"][name]
        out["base"][name] = passed_logits(step, references, BASE, name, "test")
        out["start"][name] = start
        for method, model in ((MULTITASK, MULTITASK), ("per_dataset", alone(name))):
            # A baseline whose datasets are a group's has no adapter of its own.
            same = prepared.names if method == MULTITASK else [name]
            model = next((f"{GROUP}{k}" for k, group in enumerate(groups) if sorted(group) == sorted(same)), model)
            asked = method in step.config.ensemble.baselines
            if asked and has_logits(references, model, name, "test"):
                out[method][name] = passed_logits(step, references, model, name, "test")
        out["group"][name] = Logits(start.row, stacked[own].astype(np.float32), start.label)
        mixed = ensemble_logits(
            start.logits.astype(np.float64), stacked, np.array(answered["weights"]), answered["temperature"]
        )
        out["ensemble"][name] = Logits(start.row, mixed.astype(np.float32), start.label)
    return {method: tables for method, tables in out.items() if tables}


def _evaluated(step: Step, prepared: Prepared, predictions: Predictions, champion: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the summary that only depends on predictions."""
    resamples, seed = step.config.ensemble.bootstrap, step.config.seed
    metric: dict[str, Any] = {dataset.name: dataset.metric for dataset in prepared.datasets}
    loss: dict[str, Any] = dict.fromkeys(metric, "cross_entropy")
    scored = {method: scored_tables(tables) for method, tables in predictions.items()}
    results: dict[str, dict[str, Any]] = {name: {} for name in metric}
    averages = {}
    for done, (method, by_dataset) in enumerate(scored.items()):
        for name, one in by_dataset.items():
            found = intervals(one, resamples=resamples, seed=seed, stream=name)
            results[name][method] = {kind: asdict(value) for kind, value in found.items()}
        averages[method] = {
            "metric": asdict(average(by_dataset, metric, resamples=resamples, seed=seed)),
            "cross_entropy": asdict(average(by_dataset, loss, resamples=resamples, seed=seed)),
        }
        step.progress(done + 1, len(scored), method)
    comparisons = [
        told(baseline, compare(scored["ensemble"], scored[baseline], metric, resamples=resamples, seed=seed))
        for baseline in ("multitask", "per_dataset")
        if baseline in scored
    ]
    labels = {dataset.name: list(dataset.labels) for dataset in prepared.datasets}
    evaluated: dict[str, Any] = {
        "methods": list(scored),
        "results": results,
        "average": averages,
        "comparisons": comparisons,
        "labels": labels,  # in the order of the logits' columns, for the next run's comparison
    }
    before = _champion(step, champion)
    if before is not None:
        against = against_champion(before, predictions["ensemble"], prepared, resamples=resamples, seed=seed)
        evaluated["comparisons"] += [against.pop("comparison")] if against["comparison"] else []
        evaluated["against_champion"] = against
    return evaluated


def _champion(step: Step, champion: Mapping[str, Any]) -> Artifact | None:
    """The champion's evaluation; None where nothing serves, or its predictions are gone."""
    return find(step.store, champion["predictions"]) if champion else None


def _drift(step: Step, champion: Mapping[str, Any], made: Artifact) -> dict[str, Any] | None:
    """How far each dataset has moved since the champion; beyond the thresholds it is said, and told to the webhook."""
    before = _champion(step, champion)
    if before is None:
        gone = "the champion's predictions are not in the store any more: nothing to compare with"
        step.say_if(gone if champion else "")
        return None
    features = {name: load(step.store, key) for name, key in made.facts["features"].items()}
    moved = measure(step.store, before, features, made.facts["label_shares"])
    found = warnings(step.config.drift, moved)
    for name, words in found.items():
        step.say(f"drift: {name}: {', '.join(words)} since champion version {champion['version']}")
    if found:
        text = f"{', '.join(found)} moved since champion version {champion['version']} of {step.config.name}"
        step.say_if(alert(step.config, step.run_name, "drift", text, {"by_dataset": moved, "warnings": found}))
    return {"champion": champion["version"], "by_dataset": moved, "warnings": found}


def _publish(step: Step, run_id: str, prepared: Prepared, evaluated: dict[str, Any], report: Path) -> None:
    """Write the report, and show MLflow what was found and on which datasets."""
    summary = assemble(step.store, step.run_name, step.config) | evaluated
    if step.facts["drift"]:
        summary["drift"] = step.facts["drift"]
    figures = draw_figures(summary)
    page = render_report(summary, figures)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(page)
    _log(step, run_id, summary, page, {name: one.png for name, one in figures.items()})
    uses = [dataset_use(step, prepared, name, "evaluation") for name in prepared.names]
    tracking.log_datasets(reconnect(str(step.config.tracking.uri)), run_id, uses)


def _log(step: Step, run_id: str, summary: dict[str, Any], page: str, figures: dict[str, bytes]) -> None:
    """Averages, results, report and figures under the parent run; affinity, partition and weights with digests."""
    client = reconnect(str(step.config.tracking.uri))
    numbers = {f"average.{m}": entry["metric"]["value"] for m, entry in summary["average"].items()}
    for name, methods in summary["results"].items():
        for method, found in methods.items():
            numbers |= {f"{name}.{method}.{kind}": value["value"] for kind, value in found.items()}
    for name, moved in summary.get("drift", {}).get("by_dataset", {}).items():
        numbers |= {f"drift.{name}.{what}": value for what, value in moved.items() if value is not None}
    tracking.log_metrics(client, run_id, numbers)
    client.log_text(run_id, page, "report.html")
    client.log_dict(run_id, summary, "summary.json")
    for name, png in figures.items():
        tracking.log_bytes(client, run_id, png, f"figures/{name}.png")
    for record in read_records(step.store, step.run_name):
        for label in ("affinity", "partition", "weights"):
            if label in record["artifacts"]:
                artifact = load(step.store, record["artifacts"][label]["key"])
                tracking.log_folder(client, run_id, artifact.folder, label, artifact.digest)
