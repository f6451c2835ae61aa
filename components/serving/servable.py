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
from components.ensemble_logits import boosters_of, ensemble_logits, member_logits, start_logits
from components.inputs import START, Prepared, outputs_digest, read_datasets, weights_digest
from components.label_logits import obtain_logits
from components.prepared import PreparedDataset, SplitName
from components.sampling import sample_rows
from components.serving.description import coefficients, merged_name, weights_told
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
                merged = _merge(step, references, dataset.name, parts)
                _measure(step, work, references, ensemble, dataset, merged)
        if step.config.serving.router and len(classified) > 1:
            _router(step, work, prepared, classified)
        step.pass_on(servable)


def _described(step: Step, references: Mapping[str, str]) -> dict[str, Any]:
    """The part of ``ensemble.json`` that says how logits are added up."""
    weighed = step.load(references, "weights").facts
    members = [
        {
            "name": name,
            "boosters": [{"eta": step.config.boosting.shrinkage} for _ in boosters_of(references, name)],
        }
        for name in weighed["members"]
    ]
    return {"members": members, **weights_told(weighed["rows"])}


def _merge(step: Step, references: Mapping[str, str], dataset: str, parts: Mapping[str, float]) -> Artifact:
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

    return step.obtain(f"merged/{dataset}", "merged", inputs, write)


def _measure(
    step: Step,
    work: "OnDemand",
    references: Mapping[str, str],
    ensemble: Mapping[str, Any],
    dataset: PreparedDataset,
    merged: Artifact,
) -> None:
    """How far the merged adapter is from the ensemble: on the validation rows, which decide whether it answers by
    default; and where it does, on the test rows, because the gate judges exact answers.
    """
    found = _compared(step, work, references, ensemble, dataset, merged, "validation")
    rank, lost = merged.facts["rank"], merged.facts["lost"]
    said = (
        f"{dataset.name}: merged, {found['labels']:.1%} of the validation labels differ (KL {found['kl']:.4f} nats; "
        f"rank {rank} loses {lost:.1%} of the change)"
    )
    if found["labels"] <= step.config.serving.max_disagreement:
        served = _compared(step, work, references, ensemble, dataset, merged, "test")
        said += f"; it answers by default, test accuracy {served['merged']:.1%} instead of {served['exact']:.1%}"
    step.say(said)


def _compared(
    step: Step,
    work: "OnDemand",
    references: Mapping[str, str],
    ensemble: Mapping[str, Any],
    dataset: PreparedDataset,
    merged: Artifact,
    split: SplitName,
) -> dict[str, Any]:
    """Exact and merged answers to one split, passed on as ``disagreement/<dataset>`` or ``served/<dataset>``."""
    table = obtain_logits(
        step,
        outputs_digest(step, weights_digest(merged)),
        dataset,
        split,
        work.logits(merged.folder, dataset, split),
        model=merged_name(dataset.name),
    )
    name = dataset.name
    members = [member_logits(step, references, member["name"], name, split) for member in ensemble["members"]]
    start = start_logits(step, references, name, split).logits.astype(np.float64)
    temperature = ensemble["temperatures"][name]
    exact = ensemble_logits(start, np.stack(members), np.array(ensemble["weights"][name]), temperature)
    answered = table.logits / temperature

    def write(folder: Path) -> dict[str, Any]:
        right = {
            mode: float((z.argmax(1) == table.label).mean()) for mode, z in (("exact", exact), ("merged", answered))
        }
        facts = {"rows": len(table.row), **disagreement(exact, answered), **right}
        (folder / "disagreement.json").write_text(json.dumps(facts, indent=1))
        return facts

    rows = digest_of([table.row.tolist(), table.label.tolist(), np.round(exact, 5).tolist()])
    label = "disagreement" if split == "validation" else "served"
    return step.obtain(f"{label}/{name}", "disagreement", {"merged": merged.digest, "rows": rows}, write).facts


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


def _label(adapter: str) -> str:
    """What an ensemble's adapter is passed on as: ``start``, ``adapter/<member>``, ``booster/group-0-0``."""
    if adapter == "start":
        return START
    kind = "booster" if "-booster-" in adapter else "adapter"
    return f"{kind}/{adapter.replace('-booster-', '-')}"
