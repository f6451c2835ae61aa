"""Losses of subsets with a known correlation of prediction and truth, and a known share of noise."""

import numpy as np

from components.validation.agreement import Cells


def random_subsets(n: int, size: int, count: int, seed: int) -> np.ndarray:
    """Random subsets of one size, bool [count, n]."""
    rng = np.random.default_rng(seed)
    return np.stack([np.isin(np.arange(n), rng.choice(n, size, replace=False)) for _ in range(count)])


def planted(*, correlation: float, reliability: float, subsets: int, n: int, size: int, seeds: int, seed: int) -> Cells:
    """What a subset reaches is normal, a prediction of it correlates as told, and S noisy runs are seen.

    Args:
        reliability: of the mean over seeds.
    """
    rng = np.random.default_rng(seed)
    members = random_subsets(n, size, subsets, seed)
    reached = rng.normal(size=members.shape)
    guess = correlation * reached + (1 - correlation**2) ** 0.5 * rng.normal(size=members.shape)
    signal = reliability**0.5
    noise = (seeds * (1 - reliability)) ** 0.5 * rng.normal(size=(subsets, seeds, n))
    level = 5 + np.arange(n)  # what is hard about a dataset is no merit of a predictor
    true = np.where(members[:, None], level + 0.1 * (signal * reached[:, None] + noise), np.nan)
    return Cells(members, true, {"ours": level + 0.1 * guess})
