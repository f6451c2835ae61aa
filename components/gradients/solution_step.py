"""The step in the adapter's weights that the surrogate's solution for a subset stands for.

At the optimum the solution is a combination of its training rows' gradients, with coefficients
``a_i = sigmoid(-(h*_i + g_i . w)) / (lambda |S| M)``; the same combination of the unprojected gradients is the step.
Where the features are solved for in parts, it is the mean of the parts' steps.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from components.inputs import Prepared
from components.tables import Features

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from components.estimator import GroupEstimator
    from components.on_demand import OnDemand


def solution_step(
    work: "OnDemand",
    model: "PeftModel",
    prepared: Prepared,
    estimator: "GroupEstimator",
    train: Mapping[str, Features],
    names: Sequence[str],
    batch_tokens: int,
) -> tuple[np.ndarray, dict[str, "torch.Tensor"]]:
    """Solve the surrogate for the datasets ``names`` as `estimate` does.

    Args:
        model: stands at the point where the features were taken.
        train: features of all datasets' training rows, in the estimator's order.

    Returns:
        w [dim] and the change of every trainable parameter by its name.
    """
    from components.weighted_step import weighted_gradients

    weights, coefficients = _solution(estimator, train, names)
    rows = [work.examples(prepared[name], "train", train[name].row) for name in names]
    return weights, weighted_gradients(model, work.base, rows, coefficients, batch_tokens)


def _solution(
    estimator: "GroupEstimator", train: Mapping[str, Features], names: Sequence[str]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The surrogate's w [dim] for the subset, and the coefficients a of its training rows, one [M] a dataset."""
    members = np.array([[name in names for name in train]])
    solved = estimator.solve(members)
    weights, path = solved.weights[0].astype(np.float64), estimator.lambdas(members)[:, 0]
    strength, count = path[solved.lambda_index[:, 0, 0]], len(estimator.parts)
    coefficients = []
    for name in names:
        table = train[name]
        pulls = [
            expit(-(table.margin + count * table.features[:, columns] @ weights[columns])) / one
            for columns, one in zip(estimator.parts, strength, strict=True)
        ]
        coefficients.append(np.mean(pulls, axis=0) / (len(names) * len(table.row)))
    return weights, coefficients
