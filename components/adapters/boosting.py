"""The mathematics of one boosting step in a group: a ridge fit on stored features and the step it stands for.

Functional gradient boosting: the group's adapter leaves margins h_i on its training rows, and the loss
``log(1 + exp(-h))`` falls fastest when row i's margin moves by the residual ``r_i = sigmoid(-h_i)``. The booster is
the first-order model of that move, ``g_i . w ~ r_i``, fitted by ridge regression. In the space of the adapter's weights
the solution is ``u = sum_i a_i grad h_i``, one backward pass weighted with the dual coefficients
``a = (K + ridge I)^{-1} r``, K the Gram matrix of the features. (Stepping along the transposed projection instead
would predict the same margins with a step far too long to stay linear.)
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logsumexp

FOLDS = 5
# In units of the mean squared feature norm times the number of rows: from almost no pull towards zero to a strong one.
RIDGES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


def margin_of(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Log-odds of the right answer, [N] from logits [N, C]."""
    others = np.array(logits, np.float64)
    others[np.arange(len(label)), label] = -np.inf
    return logits[np.arange(len(label)), label] - logsumexp(others, axis=1)


def residuals(margin: np.ndarray) -> np.ndarray:
    """``sigmoid(-h)``, [M]: minus the derivative of the loss with respect to each row's margin."""
    return expit(-np.asarray(margin, np.float64))


def dual_coefficients(
    features: np.ndarray, target: np.ndarray, row_weight: np.ndarray, seed: int
) -> tuple[np.ndarray, float]:
    """Coefficients a [M] of the ridge solution ``w = features.T @ a``, and the ridge chosen by cross-validation.

    Minimises ``sum_i v_i (g_i . w - r_i)^2 + ridge |w|^2`` with row weights v.

    Args:
        features: [M, dim].
        target: r [M].
        row_weight: v [M], positive; datasets weigh equally where each row has 1 / (rows of its dataset).
    """
    scale = np.sqrt(row_weight / row_weight.mean())
    scaled, aim = features.astype(np.float64) * scale[:, None], target * scale
    unit = float(np.square(scaled).sum())
    fold = np.random.default_rng(seed).permutation(len(target)) % FOLDS
    folds = [(scaled[fold == k], aim[fold == k]) for k in range(FOLDS)]
    moments = scaled.T @ scaled, scaled.T @ aim
    errors = [sum(_held_out_error(moments, *part, ridge * unit) for part in folds) for ridge in RIDGES]
    ridge = RIDGES[int(np.argmin(errors))]
    # The normal equations in dim unknowns, whatever the number of rows: ridge a = r - G w at the solution.
    return (aim - scaled @ _ridge(*moments, ridge * unit)) / (ridge * unit) * scale, ridge


def paired_gain(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> tuple[float, float]:
    """Fall of the validation loss, mean over datasets of the mean over rows, and its standard error.

    Args:
        before, after: losses of the same rows, one array [N_i] a dataset.
    """
    falls = [b - a for b, a in zip(before, after, strict=True)]
    variance = sum(fall.var(ddof=1) / len(fall) for fall in falls)
    return float(np.mean([fall.mean() for fall in falls])), float(np.sqrt(variance) / len(falls))


def _ridge(gram: np.ndarray, moment: np.ndarray, ridge: float) -> np.ndarray:
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), moment)


def _held_out_error(
    moments: tuple[np.ndarray, np.ndarray], features: np.ndarray, target: np.ndarray, ridge: float
) -> float:
    """Squared error on rows that the fit does without: their share is taken out of the moments."""
    gram, moment = moments
    weights = _ridge(gram - features.T @ features, moment - features.T @ target, ridge)
    return float(np.square(features @ weights - target).sum())
