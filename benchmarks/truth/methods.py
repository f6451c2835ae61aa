"""Ways to answer made of adapters: what each reaches on the test rows, at which price."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.truth.members import Members
from benchmarks.truth.setting import note
from components.artifacts import Artifact
from components.ensemble.metrics import Metric, score, value
from components.ensemble.weights import fit_weights
from components.ensemble_logits import ensemble_logits
from components.prepared import PreparedDataset
from components.validation.partitions import difference

Parts = list[tuple[Artifact | None, Sequence[str]]]
"""Members of an ensemble: an adapter (None: theta* itself), and the datasets that it answers first."""


@dataclass(frozen=True)
class Method:
    """One way to answer.

    Attributes:
        parts: the members.
        weighted: all members answer, with weights fitted on validation rows, the first member with its prior; else the
            first alone.
        start: whether the warm start's FLOPs are part of its price.
        features: whether extraction's are.
        flops: what making the parts took besides their own.
    """

    name: str
    parts: Parts
    weighted: bool = False
    start: bool = True
    features: bool = False
    flops: int = 0

    def answering(self, name: str) -> tuple[Parts, int]:
        """The members that answer a dataset, and which of them is its first."""
        first = next(k for k, part in enumerate(self.parts) if name in part[1])
        return (self.parts, first) if self.weighted else ([self.parts[first]], 0)


Results = dict[str, list[dict[str, Any]]]
"""By method, what :func:`measured` found with every seed."""


def add(results: Results, members: Members, method: Method, seed: int) -> None:
    """Measure a method with the next seed, and tell."""
    found = measured(members, method, seed)
    results.setdefault(method.name, []).append(found)
    note(f"seed {seed}: {method.name}: metric {found['metric']:.4f}, loss {found['calibrated']:.4f}")


def measured(members: Members, method: Method, seed: int) -> dict[str, Any]:
    """Test metric and losses, mean over datasets, and FLOPs of one method with one seed; the metric also by dataset.

    Losses are shares of the dataset's label entropy, so that many labels weigh no more than few. ``loss`` is that of
    the answers as they are; ``calibrated`` is that of a sole member at a temperature fitted on validation rows too, as
    weighted members' answers always are.
    """
    _look_up(members, method)
    scores, losses = [], []
    for dataset in members.prepared.datasets:
        label, *sides = _answers(members, method, dataset, seed)
        row, entropy = dataset.splits["test"].row, dataset.entropy()
        scored = [score(row, logits, label) for logits in sides]
        metric: Metric = "macro_f1" if dataset.metric == "macro_f1" else "accuracy"
        scores.append([value(scored[0], metric), value(scored[0], "accuracy")])
        losses.append([value(one, "cross_entropy") / entropy for one in scored])
    trained = {part.digest: part.facts["flops"] for part, _ in method.parts if part is not None}
    spent = members.spent
    flops = method.flops + sum(trained.values()) + method.start * spent["start"] + method.features * spent["features"]
    metric_mean, accuracy_mean = np.mean(scores, axis=0)
    loss, calibrated = np.mean(losses, axis=0)
    return {
        "metric": float(metric_mean),
        "accuracy": float(accuracy_mean),
        "loss": float(loss),
        "calibrated": float(calibrated),
        "flops": int(flops),
        "by_dataset": [one[0] for one in scores],
    }


def table(results: Results, *against: str) -> dict[str, Any]:
    """Rows by method: numbers of every seed, paired differences to other methods, relative FLOPs.

    Args:
        against: names of methods to compare with; the first one's FLOPs are the unit.
    """
    rows: dict[str, Any] = {}
    for name, found in results.items():
        rows[name] = {key: [one[key] for one in found] for key in ("metric", "accuracy", "loss", "calibrated")}
        rows[name]["flops"] = float(np.mean([one["flops"] for one in found]))
        rows[name]["by_dataset"] = np.mean([one["by_dataset"] for one in found], axis=0).tolist()
        for other in against:
            base = results.get(other, [])[: len(found)]
            if name != other and len(base) == len(found) > 1:
                rows[name][f"against {other}"] = {
                    key: vars(difference(np.array([a[key] - b[key] for a, b in zip(found, base, strict=True)])))
                    for key in ("metric", "loss", "calibrated")
                }
    unit = rows[against[0]]["flops"] if against[0] in rows else None
    for row in rows.values():
        row["relative_flops"] = row["flops"] / unit if unit else None
    return {"methods": rows}


def _look_up(members: Members, method: Method) -> None:
    """Bring all logits into the store, adapter by adapter, so that each is loaded once."""
    names = members.prepared.names
    asked = [(part[0], name) for part in method.parts for name in names if part in method.answering(name)[0]]
    for adapter, name in asked:
        for split in ("validation", "test"):
            members.logits(adapter, name, split)


def _answers(
    members: Members, method: Method, dataset: PreparedDataset, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels [N] of a dataset's test rows, the method's logits [N, C], and the calibrated ones (weighted: the same)."""
    name, (parts, first) = dataset.name, method.answering(dataset.name)
    found = {}
    for split in ("validation", "test"):
        start, label = members.logits(None, name, split)
        found[split] = start, np.stack([members.logits(adapter, name, split)[0] for adapter, _ in parts]), label
    start, stacked, label = found["validation"]
    row = fit_weights(start, stacked - start, label, first, seed)
    start, stacked, label = found["test"]
    calibrated = ensemble_logits(start, stacked, row.weights, row.temperature)
    return label, calibrated if method.weighted else stacked[0], calibrated
