"""The estimator of a run: made of its features, its training settings and its datasets' sizes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.artifacts import Artifact
from components.config import RunConfig
from components.inputs import Prepared, read_split
from components.training_time import training_times

if TYPE_CHECKING:
    from components.estimator import GroupEstimator


def group_estimator(config: RunConfig, prepared: Prepared, features: Mapping[str, Artifact]) -> "GroupEstimator":
    """Ready to estimate any subset of the prepared datasets.

    Args:
        features: their feature artifacts, in the same order.
    """
    from components.estimator import GroupEstimator  # brings torch, which a step that is reused does without

    train, validation = (read_split(features, split) for split in ("train", "validation"))
    rows = [len(dataset.splits["train"].row) for dataset in prepared.datasets]
    parameters = next(iter(features.values())).facts["parameters"]
    times = training_times(config.training, rows, train, parameters)
    settings, names = config.surrogate, prepared.names
    return GroupEstimator(
        train, validation, settings.lambdas, times, seed=config.seed, names=names, width=settings.width
    )


def estimated_from(config: RunConfig, digests: Mapping[str, str], features: Mapping[str, Artifact]) -> dict[str, Any]:
    """What fixes the estimates of any subset, for the keys of what is made of them.

    Args:
        digests: of the prepared datasets.
    """
    training = config.training.model_dump(include={"epochs", "learning_rate", "batch_size"})
    return {
        "features": {name: artifact.digest for name, artifact in features.items()},
        "datasets": dict(digests),
        "order": list(features),  # of the columns: a key sorts what is in a dictionary
        "training": training,
        "lambdas": config.surrogate.lambdas,
        "width": config.surrogate.width,
        "seed": config.seed,
    }
