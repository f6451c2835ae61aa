"""The step `servable`: what makes the ensemble cheap and easy to serve.

A merged adapter for every dataset whose answers come from several, with its measured disagreement with the ensemble on
the validation rows, and a router for requests that name no dataset.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax

from components.artifacts import Artifact, digest_of
from components.inputs import START, Prepared, outputs_digest, read_datasets, weights_digest
from components.label_logits import obtain_logits, passed_logits
from components.prepared import PreparedDataset, SplitName
from components.sampling import sample_rows
from components.serving.description import coefficients, merged_name
from components.step import Step, read_references

if TYPE_CHECKING:
    from components.on_demand import OnDemand

ROUTER_ROWS = 200  # of each dataset; a linear router on features of a few hundred numbers asks for no more


def run(
    config: str,
    run_name: str,
    datasets: Path,
    start: Path,
    partition: Path,
    features: list[Path],
    adapters: list[Path],
    boosters: list[Path],
    weights: Path,
    servable: Path,
) -> None:
    """Merge and measure; pass on ``merged/<dataset>``, ``disagreement/<dataset>`` and ``router``."""
    from components.on_demand import OnDemand

    with Step("servable", config, run_name) as step:
        prepared = read_datasets(step, read_references(datasets))
        references = read_references([start, partition, weights, *features, *adapters, *boosters])
        ensemble = _described(step, references)
        work, classified = OnDemand(step), [dataset for dataset in prepared.datasets if not dataset.completion]
        for done, dataset in enumerate(classified):
            step.progress(done, len(classified), dataset.name)
            parts = coefficients(ensemble, dataset.name)
            if len(parts) > 1:
                _merge(step, work, references, dataset, parts)
        if step.config.serving.router and len(classified) > 1:
            _router(step, work, prepared, classified)
        step.pass_on(servable)


def _described(step: Step, references: Mapping[str, str]) -> dict[str, Any]:
    """The part of ``ensemble.json`` that says how logits are added up."""
    weighed = step.load(references, "weights").facts
    groups = [
        {
            "name": name,
            "boosters": [
                {"eta": step.config.boosting.shrinkage} for label in references if label.startswith(f"booster/{name}-")
            ],
        }
        for name in weighed["groups"]
    ]
    return {"groups": groups, "weights": {name: row["weights"] for name, row in weighed["rows"].items()}}


def _merge(
    step: Step, work: "OnDemand", references: Mapping[str, str], dataset: PreparedDataset, parts: Mapping[str, float]
) -> None:
    artifacts = {name: step.load(references, _label(name)) for name in parts}
    rank = step.config.serving.rank or step.config.lora.rank
    inputs = {
        "adapters": {name: weights_digest(artifact) for name, artifact in artifacts.items()},
        "coefficients": dict(parts),
        "rank": rank,
    }

    def write(folder: Path) -> dict[str, Any]:
        from components.serving.merge import Part, merge

        lost = merge([Part(artifacts[name].folder, share) for name, share in parts.items()], rank, folder)
        return {"rank": rank, "lost": lost}

    merged = step.obtain(f"merged/{dataset.name}", "merged", inputs, write)
    _disagreement(step, work, references, dataset, parts, merged)


def _disagreement(
    step: Step,
    work: "OnDemand",
    references: Mapping[str, str],
    dataset: PreparedDataset,
    parts: Mapping[str, float],
    merged: Artifact,
) -> None:
    """How far the merged adapter's answers are from the ensemble's, on the validation rows."""
    table = obtain_logits(
        step,
        outputs_digest(step, weights_digest(merged)),
        dataset,
        "validation",
        work.logits(merged.folder, dataset, "validation"),
        model=merged_name(dataset.name),
    )
    exact = np.zeros(table.logits.shape)
    for name, share in parts.items():
        exact += share * passed_logits(step, references, _model(name), dataset.name, "validation").logits

    def write(folder: Path) -> dict[str, Any]:
        facts = {"rows": len(table.row), **disagreement(exact, table.logits)}
        (folder / "disagreement.json").write_text(json.dumps(facts, indent=1))
        return facts

    inputs = {"merged": merged.digest, "rows": digest_of([table.row.tolist(), np.round(exact, 5).tolist()])}
    found = step.obtain(f"disagreement/{dataset.name}", "disagreement", inputs, write).facts
    step.say(
        f"{dataset.name}: merged from {len(parts)} adapters, {found['labels']:.1%} of the validation labels differ "
        f"(KL {found['kl']:.4f} nats; rank {merged.facts['rank']} loses {merged.facts['lost']:.1%} of the change)"
    )


def disagreement(exact: np.ndarray, merged: np.ndarray) -> dict[str, float]:
    """Share of rows with another label, and mean Kullback-Leibler divergence from exact to merged in nats.

    Args:
        exact, merged: logits [N, C].
    """
    p, q = log_softmax(exact, axis=1), log_softmax(merged.astype(np.float64), axis=1)
    return {
        "labels": float((p.argmax(axis=1) != q.argmax(axis=1)).mean()),
        "kl": float((np.exp(p) * (p - q)).sum(axis=1).mean()),
    }


def _router(step: Step, work: "OnDemand", prepared: Prepared, classified: list[PreparedDataset]) -> None:
    seed = step.config.seed
    inputs = {
        "base": outputs_digest(step, None),
        "datasets": {dataset.name: prepared.digests[dataset.name] for dataset in classified},
        "rows": ROUTER_ROWS,
        "seed": seed,
    }

    def write(folder: Path) -> dict[str, Any]:
        from components.serving.router import fit_router, joined, text_features, write_router

        rows: dict[SplitName, dict[str, np.ndarray]] = {"train": {}, "validation": {}}
        for split, found in rows.items():
            for done, dataset in enumerate(classified):
                part = dataset.splits[split]
                chosen = sample_rows(part.row, ROUTER_ROWS, seed)
                texts = joined({name: [column[i] for i in chosen] for name, column in part.fields.items()})
                found[dataset.name] = text_features(work.base, texts, step.config.model.max_length)
                step.progress(done + 1, len(classified), f"router: {split} rows of {dataset.name}")
        router = fit_router(rows["train"], seed)
        write_router(router, folder)
        right = {
            name: float(np.mean([answer == name for answer in router.route(features, router.names)]))
            for name, features in rows["validation"].items()
        }
        return {"datasets": router.names, "accuracy": float(np.mean(list(right.values()))), "by_dataset": right}

    found = step.obtain("router", "router", inputs, write).facts
    step.say(f"the router finds the dataset of {found['accuracy']:.1%} of the validation rows (mean over datasets)")


def _model(adapter: str) -> str:
    """What the logits of an ensemble's adapter are called: ``start``, ``group-0``, ``group-0-0``."""
    return START if adapter == "start" else adapter.replace("-booster-", "-")


def _label(adapter: str) -> str:
    """What an ensemble's adapter is passed on as."""
    if adapter == "start":
        return START
    return f"booster/{_model(adapter)}" if "-booster-" in adapter else f"adapter/{adapter}"
