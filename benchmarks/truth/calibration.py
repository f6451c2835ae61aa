"""Calibrating the estimates with a few real fine-tunes: what that gains over those fine-tunes' own means, and costs.

Some random subsets, fine-tuned once each, are to put the estimates of all others right. ``shifted``: each dataset's
estimates are moved by their mean error there. ``scaled``: besides, their differences are multiplied by one common
slope, fitted by least squares and held between 0 and 1. ``means``: no estimates at all, but each dataset's mean loss in
those fine-tunes. What is left over is compared with the mean over all seeds. It reads what `study` found.
"""

from typing import Any

import numpy as np

from benchmarks.truth.setting import Setting, about_again

COUNTS, DRAWS = (3, 6, 12, 24), 500
WAYS = ("shifted", "scaled", "means")


def calibration(to: Setting) -> None:
    """Keep the table for what `study` found.

    Raises:
        typer.BadParameter: it has not run.
    """
    study = to.needed("study")
    a_subset = study["cost"]["a_subset"] * study["subset_size"] / study["cost"]["estimating"]["flops"]
    estimated, true = _tables(study)
    rng = np.random.default_rng(study["seed"])
    rows = [
        {"subsets": count, "cost": count * a_subset, **_errors(estimated, true, count, rng)}
        for count in COUNTS
        if count < len(true)
    ]
    to.keep("calibration", {**about_again(study), "draws": DRAWS, "rows_of_table": rows})


def _tables(study: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Estimated [K, n] and true [K, S, n] losses of the random subsets; NaN where a dataset is not in one."""
    cells = [cell for cell in study["cells"] if cell["random"]]
    subsets, names = sorted({cell["subset"] for cell in cells}), study["datasets"]
    estimated = np.full((len(subsets), len(names)), np.nan)
    true = np.full((len(subsets), study["seeds"], len(names)), np.nan)
    for cell in cells:
        at = subsets.index(cell["subset"]), names.index(cell["dataset"])
        estimated[at], true[at[0], :, at[1]] = cell["surrogate"], cell["true"]
    return estimated, true


def _errors(estimated: np.ndarray, true: np.ndarray, count: int, rng: np.random.Generator) -> dict[str, Any]:
    """Mean relative error on the other subsets over draws, by way, and that of the estimates as they are.

    Args:
        estimated, true: losses [K, n] and [K, S, n], S fine-tunes of each subset; NaN where a dataset is not in one.
        count: subsets to calibrate with, by the first fine-tune of each.
    """
    found: dict[str, list[float]] = {name: [] for name in ("estimates", *WAYS)}
    for _ in range(DRAWS):
        order = rng.permutation(len(true))
        known, rest = order[:count], order[count:]
        ours, theirs = estimated[known], true[known, 0]
        # A dataset that none of them holds, or none of the others, is left out.
        seen = np.isfinite(ours).any(axis=0) & np.isfinite(estimated[rest]).any(axis=0)
        centre, mean = (_mean(side, seen) for side in (ours, theirs))
        held = np.isfinite(ours) & seen
        spread = np.where(held, ours - centre, 0)
        slope = (spread * np.where(held, theirs - mean, 0)).sum() / max((spread**2).sum(), 1e-12)
        raw, target = estimated[rest][:, seen], true[rest].mean(axis=1)[:, seen]
        centre, mean = centre[seen], mean[seen]
        predicted = {
            "estimates": raw,
            "shifted": raw + mean - centre,
            "scaled": mean + np.clip(slope, 0, 1) * (raw - centre),
            "means": raw * 0 + mean,
        }
        for name, values in predicted.items():
            off = np.nansum(np.abs(values - target), axis=0) / np.nansum(target, axis=0)
            found[name].append(float(off.mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _mean(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mean of each column over what is known; 0 in columns that nothing is known of."""
    return np.where(seen, np.nansum(values, axis=0) / np.maximum(np.isfinite(values).sum(axis=0), 1), 0)
