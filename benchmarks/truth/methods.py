"""Ways to answer made of adapters: what each reaches on the test rows, at which price."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.truth.members import Members
from components.artifacts import Artifact
from components.ensemble.metrics import Metric, score, value
from components.ensemble.weights import fit_weights
from components.ensemble_logits import ensemble_logits
from components.prepared import PreparedDataset
from components.validation.partitions import difference

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


def measured(members: Members, method: Method, seed: int) -> dict[str, Any]:
    """Test metric and loss, mean over datasets and by dataset, and FLOPs of one method with one seed.

    The loss is a share of the dataset's label entropy, so that many labels weigh no more than few.
    """
    _look_up(members, method)
    scores, losses = [], []
    for dataset in members.prepared.datasets:
        scored = score(*_answers(members, method, dataset, seed))
        metric: Metric = "macro_f1" if dataset.metric == "macro_f1" else "accuracy"
        scores.append([value(scored, metric), value(scored, "accuracy")])
        losses.append(value(scored, "cross_entropy") / dataset.entropy())
    trained = {part.digest: part.facts["flops"] for part, _ in method.parts if part is not None}
    spent = members.spent
    flops = sum(trained.values()) + method.start * spent["start"] + method.features * spent["features"]
    metric_mean, accuracy_mean = np.mean(scores, axis=0)
    return {
        "metric": float(metric_mean),
        "accuracy": float(accuracy_mean),
        "loss": float(np.mean(losses)),
        "flops": int(flops),
        "by_dataset": [one[0] for one in scores],
    }


def table(results: dict[str, list[dict[str, Any]]], *against: str) -> dict[str, Any]:
    """Rows by method: numbers of every seed, paired differences to other methods, relative FLOPs.

    Args:
        against: names of methods to compare with; the first one's FLOPs are the unit.
    """
    rows: dict[str, Any] = {}
    for name, found in results.items():
        rows[name] = {key: [one[key] for one in found] for key in ("metric", "accuracy", "loss")}
        rows[name]["flops"] = float(np.mean([one["flops"] for one in found]))
        rows[name]["by_dataset"] = np.mean([one["by_dataset"] for one in found], axis=0).tolist()
        for other in against:
            base = results.get(other, [])[: len(found)]
            if name != other and len(base) == len(found) > 1:
                rows[name][f"against {other}"] = {
                    key: vars(difference(np.array([a[key] - b[key] for a, b in zip(found, base, strict=True)])))
                    for key in ("metric", "loss")
                }
    unit = rows[against[0]]["flops"] if against[0] in rows else None
    for row in rows.values():
        row["relative_flops"] = row["flops"] / unit if unit else None
    return {"methods": rows}


def _look_up(members: Members, method: Method) -> None:
    """Bring all logits into the store, adapter by adapter, so that each is loaded once."""
    for adapter, own in method.parts:
        for name in members.prepared.names if method.weighted else own:
            for split in ("validation", "test") if method.weighted else ("test",):
                members.logits(adapter, name, split)


def _answers(
    members: Members, method: Method, dataset: PreparedDataset, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row ids, the method's test logits on a dataset, and the labels."""
    name, row = dataset.name, dataset.splits["test"].row
    own = next(k for k, (_, datasets) in enumerate(method.parts) if name in datasets)
    if not method.weighted:
        return row, *members.logits(method.parts[own][0], name, "test")
    found = {}
    for split in ("validation", "test"):
        start, label = members.logits(None, name, split)
        stacked = np.stack([members.logits(adapter, name, split)[0] for adapter, _ in method.parts])
        found[split] = start, stacked, label
    start, stacked, label = found["validation"]
    weights = fit_weights(start, stacked - start, label, own, seed).weights
    start, stacked, label = found["test"]
    return row, ensemble_logits(start, stacked, weights), label
