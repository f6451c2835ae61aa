"""Where a gain comes from: the ensemble against its controls, at stated FLOPs, over seeds.

python -m benchmarks.truth.controls --data DATA --model MODEL

Methods, each with the product's recipe: one multi-task adapter from the raw initialisation and from theta*; an adapter
each; the chosen groups by their own adapter and weighted; random partitions of the same shape; m adapters on everything
with 1/m of the steps each; two multi-task adapters weighted, and their weights averaged; the chosen groups with a
multi-task adapter or with theta* as one member more. Everything is kept by content: stopped, the command goes on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.truth import setting
from benchmarks.truth.members import Members
from benchmarks.truth.setting import (
    DATASETS,
    HERE,
    DataOption,
    DatasetsOption,
    EpochsOption,
    ModelOption,
    OutOption,
    QuantizationOption,
    RateOption,
    RootOption,
    TestOption,
    TrainOption,
    ValidationOption,
)
from components.artifacts import Artifact, load
from components.config import RunConfig
from components.config_file import resolved
from components.ensemble.metrics import Metric, score, value
from components.ensemble.weights import fit_weights
from components.ensemble_logits import ensemble_logits
from components.inputs import read_datasets
from components.step import Step
from components.validation.partitions import difference
from components.validation.subsets import random_partitions

Parts = list[tuple[Artifact | None, Sequence[str]]]
"""Members of an ensemble: an adapter (None: theta* itself), and the datasets it is the own adapter of."""


@dataclass(frozen=True)
class Method:
    """One way to answer.

    Attributes:
        weighted: whether each dataset's weights over all members are fitted on validation rows; otherwise only its own
            member answers.
        start: whether the warm start's FLOPs are part of its price.
        features: whether extraction's are.
    """

    name: str
    parts: Parts
    weighted: bool
    start: bool = True
    features: bool = False


def main(
    data: DataOption,
    model: ModelOption,
    root: RootOption = Path(".loraloom/truth"),
    out: OutOption = HERE / "controls.json",
    datasets: DatasetsOption = DATASETS,
    train: TrainOption = 800,
    validation: ValidationOption = 400,
    test: TestOption = 1000,
    epochs: EpochsOption = 3,
    learning_rate: RateOption = 1e-3,
    quantization: QuantizationOption = "none",
    partitions: int = 5,
    seeds: int = 3,
) -> None:
    """Train the members of every method for every seed, and keep the table as far as it has come."""
    config = setting.settings(
        data,
        model,
        datasets=datasets,
        rows={"train": train, "validation": validation, "test": test},
        epochs=epochs,
        learning_rate=learning_rate,
        quantization=quantization,
    )
    summary, seconds = setting.run_until(config, root, "partition")
    members = _members(config, root, summary)
    spent = {
        "start": members.theta.facts["flops"],
        "features": sum(s["flops"] or 0 for s in _features(members, summary)),
    }
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in range(seeds):
        for method in methods(members, summary["groups"], seed, partitions):
            results.setdefault(method.name, []).append(measured(members, method, spent, seed))
            setting.note(f"seed {seed}: {method.name}: {results[method.name][-1]}")
            about = setting.about(config, summary, seconds)
            setting.keep(out, {**about, "groups": summary["groups"], **table(results)})


def methods(members: Members, groups: list[list[str]], seed: int, partitions: int) -> Iterator[Method]:
    """Every method for one seed; its members are trained as it is reached."""
    names, m = members.prepared.names, len(groups)
    once = members.trained(names, seed)
    again = members.trained(names, seed + 1000)
    yield Method("multi-task, raw start", [(members.trained(names, seed, raw=True), names)], False, start=False)
    yield Method("multi-task", [(once, names)], False)
    yield Method("an adapter each", [(members.trained([name], seed), [name]) for name in names], False)
    chosen: Parts = [(members.trained(group, seed), group) for group in groups]
    yield Method("chosen groups, own", chosen, False, features=True)
    yield Method("chosen groups, weighted", chosen, True, features=True)
    rng = np.random.default_rng(members.step.config.seed)  # the same partitions for every seed
    for k, drawn in enumerate(random_partitions(groups, names, partitions, rng)):
        parts: Parts = [(members.trained(group, seed), group) for group in drawn]
        yield Method(f"random partition {k}, own", parts, False)
        yield Method(f"random partition {k}, weighted", parts, True)
    shares: Parts = [(members.trained(names, seed + 100 * k, share=1 / m), names) for k in range(m)]
    yield Method(f"{m} adapters on everything, 1/{m} of the steps", shares, True)
    yield Method("two multi-task, weighted", [(once, names), (again, names)], True)
    yield Method("two multi-task, averaged weights", [(members.averaged([once, again]), names)], False)
    yield Method("chosen groups and multi-task, weighted", [*chosen, (once, [])], True, features=True)
    yield Method("chosen groups and theta*, weighted", [*chosen, (None, [])], True, features=True)


def measured(members: Members, method: Method, spent: dict[str, int], seed: int) -> dict[str, Any]:
    """Test metric and loss, mean over datasets, and FLOPs of one method with one seed."""
    _look_up(members, method)
    scores, losses = [], []
    for dataset in members.prepared.datasets:
        logits, label = _answers(members, method, dataset.name, seed)
        scored = score(np.arange(len(label)), logits, label)
        metric: Metric = "macro_f1" if dataset.metric == "macro_f1" else "accuracy"
        scores.append(value(scored, metric))
        losses.append(value(scored, "cross_entropy"))
    flops = sum(adapter.facts["flops"] for adapter, _ in method.parts if adapter is not None)
    flops += method.start * spent["start"] + method.features * spent["features"]
    return {"metric": float(np.mean(scores)), "loss": float(np.mean(losses)), "flops": int(flops), "by_dataset": scores}


def table(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over seeds, differences to the multi-task adapters, FLOPs by the raw multi-task adapter's."""
    rows = {}
    for name, found in results.items():
        metrics, losses = (np.array([one[key] for one in found]) for key in ("metric", "loss"))
        rows[name] = {
            "metric": metrics.tolist(),
            "loss": losses.tolist(),
            "flops": float(np.mean([one["flops"] for one in found])),
            "by_dataset": np.mean([one["by_dataset"] for one in found], axis=0).tolist(),
        }
        for other in ("multi-task, raw start", "multi-task"):
            base = [one["metric"] for one in results.get(other, [])][: len(found)]
            if len(base) == len(found) > 1:
                rows[name][f"against {other}"] = vars(difference(metrics - np.array(base)))
    unit = rows.get("multi-task, raw start", {}).get("flops")
    for row in rows.values():
        row["relative_flops"] = row["flops"] / unit if unit else None
    return {"rows": rows}


def _look_up(members: Members, method: Method) -> None:
    """Bring all logits into the store, adapter by adapter, so that each is loaded once."""
    for adapter, own in method.parts:
        for name in members.prepared.names if method.weighted else own:
            for split in ("validation", "test"):
                members.logits(adapter, name, split)


def _answers(members: Members, method: Method, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The method's test logits on a dataset, and the labels."""
    own = next(k for k, (_, datasets) in enumerate(method.parts) if name in datasets)
    if not method.weighted:
        return members.logits(method.parts[own][0], name, "test")
    found = {}
    for split in ("validation", "test"):
        start, label = members.logits(None, name, split)
        stacked = np.stack([members.logits(adapter, name, split)[0] for adapter, _ in method.parts])
        found[split] = start, stacked, label
    start, stacked, label = found["validation"]
    weights = fit_weights(start, stacked - start, label, own, seed).weights
    start, stacked, label = found["test"]
    return ensemble_logits(start, stacked, weights), label


def _members(config: dict[str, Any], root: Path, summary: dict[str, Any]) -> Members:
    step = Step("train", resolved(RunConfig.model_validate(config), root).model_dump_json(), summary["run_id"])
    keys = {label: entry["key"] for label, entry in summary["artifacts"].items()}
    prepared = read_datasets(step, {entry["name"]: keys[f"dataset/{entry['name']}"] for entry in config["datasets"]})
    return Members(step, prepared, load(step.store, keys["start"]))


def _features(members: Members, summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for label, entry in summary["artifacts"].items():
        if label.startswith("features/"):
            yield load(members.step.store, entry["key"]).facts


if __name__ == "__main__":
    typer.run(main)
