"""How far training goes, told in the surrogate's terms: the regularisation that stands for it.

The surrogate's minimum is where training would end if it went on for ever; real training ends after some steps, and
with fewer steps where there are fewer rows. Gradient descent that is stopped at time t is about where ridge with lambda
= 1 / t is (Ali, Kolter, Tibshirani, AISTATS 2019). Adam divides each weight's gradient by its root mean square, so that
on average over the weights it is gradient descent at the rate ``lr / sqrt(E|g|^2 / P)``: g the gradient of a batch, P
the number of weights. Its time is the sum of that rate over the steps, and grows with a subset's datasets by addition.

Nothing is fitted to fine-tunes; ``tests/test_training_time.py`` compares with the end of a real optimiser's steps.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from components.config import TrainingConfig
from components.tables import Features, mean_pulls


def training_times(
    training: TrainingConfig, rows: Sequence[int], train: Sequence[Features], parameters: int
) -> np.ndarray:
    """The time that each dataset's rows add to the training of a group, float64 [n], in 1 / (features' units squared).

    Args:
        rows: training rows of each dataset, [n].
        train: features of some of them.
        parameters: weights of the adapter.
    """
    steps = training.epochs * np.asarray(rows) / training.batch_size
    mean_rate = training.learning_rate / 2  # it falls to 0, linearly
    return steps * mean_rate / np.sqrt(_batch_gradient(train, training.batch_size) / parameters)


def _batch_gradient(train: Sequence[Features], batch_size: int) -> float:
    """Mean squared norm of a batch's gradient at the point, the datasets equally often in it."""
    mean = mean_pulls(train).mean(axis=0)
    common, alone = mean @ mean, np.mean([_row_gradient(table) for table in train])
    return float(common + (alone - common) / batch_size)


def _row_gradient(table: Features) -> float:
    """Mean squared norm of a row's gradient."""
    squares = np.square(table.features.astype(np.float64)).sum(axis=1)
    return float((expit(-table.margin.astype(np.float64)) ** 2 * squares).mean())
