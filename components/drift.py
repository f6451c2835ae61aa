"""How far datasets have moved since the champion was made: features, margins, and the shares of labels.

*Features.* A row is known by its projected gradient at the point. Two sets of rows, n now and n' then, are compared by

    shift^2 = (|m - m'|^2 - tr S / n - tr S' / n') / ((tr S + tr S') / 2)

with means m, m' and covariances S, S': the distance of the means in standard deviations of a row, less what drawing n
and n' rows adds by chance (rows that both hold add less, so the shift errs low). The numerator is the unbiased
estimate of the squared maximum mean discrepancy with the linear kernel (Gretton et al., 2012, equation 3). It is blind
to another spread around the same mean, which a Gaussian kernel would see; but the mean gradient is what the surrogate
sums and what a first step of training follows, so this is the shift that changes adapters. Gradients at different
another point cannot be compared.

*Margin.* The same for one number, the log-odds of the correct answer at the point. Other labels on the same texts show
here: gradients of balanced classes nearly cancel in the mean, whichever way round the labels are.

*Labels.* Total variation, half the sum of the absolute differences of the shares: the share of rows that would need
another label to get from one to the other.
"""

from collections.abc import Mapping

import numpy as np

from components.artifacts import Artifact, find
from components.config import DriftConfig
from components.object_store import ObjectStore
from components.prepared import PreparedDataset
from components.tables import read_features

SPLITS = ("train", "validation")
COMPARABLE = (
    "outputs",
    "dim",
    "projection",
    "seed",
)  # inputs of features that must agree: the point and the projection


def feature_shift(now: np.ndarray, before: np.ndarray) -> float:
    """Shift of the mean in standard deviations of a row, 0 where chance explains it; features [N, dim], [M, dim].

    Raises:
        ValueError: fewer than two rows on a side.
    """
    if min(len(now), len(before)) < 2:
        raise ValueError("a covariance needs two rows")
    sides = [np.asarray(side, np.float64) for side in (now, before)]
    spread = [float(side.var(axis=0, ddof=1).sum()) for side in sides]
    distance = float(np.square(sides[0].mean(0) - sides[1].mean(0)).sum())
    by_chance = sum(one / len(side) for one, side in zip(spread, sides, strict=True))
    return float(np.sqrt(max(0.0, distance - by_chance) / max(np.mean(spread), np.finfo(float).tiny)))


def label_shares(dataset: PreparedDataset) -> dict[str, float]:
    """Label -> share of the rows of train and validation; empty for a completion dataset."""
    if dataset.completion:
        return {}
    label = np.concatenate([dataset.splits["train"].label, dataset.splits["validation"].label])
    counts = np.bincount(label, minlength=len(dataset.labels)) / len(label)
    return dict(zip(dataset.labels, counts.tolist(), strict=True))


def label_shift(now: Mapping[str, float], before: Mapping[str, float]) -> float:
    """Total variation of two distributions over labels; a label that one side lacks has share 0 there."""
    return 0.5 * sum(abs(now.get(label, 0.0) - before.get(label, 0.0)) for label in now.keys() | before.keys())


def measure(
    store: ObjectStore, champion: Artifact, features: Mapping[str, Artifact], labels: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float | None]]:
    """Drift of every dataset that the champion knew.

    Args:
        champion: its evaluation; ``features`` (name -> store key) and ``label_shares`` stand in its facts.
        features, labels: of today's datasets.

    Returns:
        Name -> ``features``, ``margin`` and ``labels``; None where nothing compares: another point or projection,
        features that were tidied away, a completion dataset's labels.
    """
    known, shares = champion.facts.get("features", {}), champion.facts.get("label_shares", {})
    found: dict[str, dict[str, float | None]] = {}
    for name, artifact in features.items():
        if name in known:
            before = find(store, known[name])
            found[name] = {
                **_moved(artifact, before),
                "labels": label_shift(labels[name], shares[name]) if labels[name] and shares[name] else None,
            }
    return found


def warnings(settings: DriftConfig, drift: Mapping[str, Mapping[str, float | None]]) -> dict[str, list[str]]:
    """Name -> what has moved beyond its threshold, in words; only datasets that have."""
    limits = settings.model_dump()
    words = {
        name: [
            f"{what} moved by {value:.2f} (limit {limits[what]:g})"
            for what, value in moved.items()
            if value is not None and value > limits[what]
        ]
        for name, moved in drift.items()
    }
    return {name: lines for name, lines in words.items() if lines}


def _moved(now: Artifact, before: Artifact | None) -> dict[str, float | None]:
    if before is None or any(now.inputs[key] != before.inputs[key] for key in COMPARABLE):
        return {"features": None, "margin": None}
    sides = [[read_features(artifact.folder, split) for split in SPLITS] for artifact in (now, before)]
    features = [np.concatenate([table.features for table in side]) for side in sides]
    margin = [np.concatenate([table.margin for table in side])[:, None] for side in sides]
    return {"features": feature_shift(*features), "margin": feature_shift(*margin)}
