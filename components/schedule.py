"""Which rows are trained on, in which order: a list of batches fixed by the seed before training starts.

A fixed list makes resuming exact (the first k batches are behind us) and lets the cost be known beforehand.
"""

from collections.abc import Sequence

import numpy as np

WINDOW = 8  # batches whose rows are sorted by length together: less padding, order still random


def batch_order(
    lengths: Sequence[Sequence[int]], epochs: float, batch_size: int, size_exponent: float, seed: int
) -> list[list[tuple[int, int]]]:
    """Batches of (dataset, position).

    An epoch has as many row draws as the datasets have rows together. Dataset i gets a share proportional to
    ``size_i ** size_exponent`` of them and goes through its rows in shuffled rounds: but for the sorting in a window,
    no row is seen k + 1 times before all are seen k times.

    Args:
        lengths: for each dataset the token counts of its rows.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([len(rows) for rows in lengths])
    total = max(batch_size, round(epochs * sizes.sum()))
    share = sizes**size_exponent / (sizes**size_exponent).sum()
    draws = np.floor(share * total).astype(int)
    draws[np.argsort(-(share * total - draws), kind="stable")[: total - draws.sum()]] += 1
    rows = [(dataset, int(i)) for dataset, count in enumerate(draws) for i in _rounds(rng, int(sizes[dataset]), count)]
    # Spread each dataset evenly over the whole run: its k-th draw of c falls near (k + 1/2) / c.
    place = np.concatenate([(np.arange(count) + rng.random(count)) / max(count, 1) for count in draws])
    rows = [rows[i] for i in np.argsort(place, kind="stable")]
    batches: list[list[tuple[int, int]]] = []
    for start in range(0, len(rows), batch_size * WINDOW):
        window = sorted(rows[start : start + batch_size * WINDOW], key=lambda row: lengths[row[0]][row[1]])
        chunk = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        batches += [chunk[i] for i in rng.permutation(len(chunk))]
    return batches


def _rounds(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate(rounds)[:count] if rounds else np.zeros(0, dtype=int)
