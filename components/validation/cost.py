"""What estimating costs, against fine-tuning what was estimated."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.artifacts import Artifact
from components.trials import Trials

PUBLISHED_SUBSETS = 50  # of 0.3 n datasets, the papers' count


def compare_costs(
    begun: Sequence[Artifact], features: Sequence[Artifact], affinity: Artifact, sizes: np.ndarray, trials: Trials
) -> dict[str, Any]:
    """FLOPs and seconds of estimating and of fine-tuning, and their ratios.

    Estimating is warm start, look-ahead, extraction and the solver for all subsets, however few it is compared by.
    Features count in full, also those of rows that an earlier run took; how long these took is not known, so then there
    are no seconds. What fine-tuning subsets that were not fine-tuned would cost is extrapolated by their number of
    datasets.

    Args:
        begun: theta*, and the point where gradients were taken.
        affinity: the estimates.
        sizes: datasets in each subset that was estimated, [K].

    Returns:
        ``estimating`` and ``fine_tuning``, each ``{"flops", "seconds"}`` (seconds None where some were not measured);
        ``solver``: what of estimating's FLOPs is the solver's; ``a_subset``: FLOPs of one fine-tune by dataset in it;
        ``ratio_published``: fine-tuning 50 subsets of 0.3 n by estimating; ``ratio_own``: fine-tuning every subset that
        was estimated by estimating; ``seconds_ratio_own``.
    """
    parts = [*begun, *features, affinity]
    flops = sum(part.facts["flops"] for part in parts)
    measured = [part.seconds for part in parts if part.seconds is not None]
    anew = all(part.facts["computed"] == part.facts["rows"] for part in features)
    seconds = float(sum(measured)) if anew and len(measured) == len(parts) else None
    held = trials.members.sum(axis=1)
    each = float(trials.flops.sum() / (held.sum() * trials.seeds))
    known = np.isfinite(trials.seconds)
    tuned = float(trials.seconds[known].sum())
    each_second = tuned / np.repeat(held, trials.seeds)[known.ravel()].sum() if known.any() else None
    published = PUBLISHED_SUBSETS * 0.3 * trials.members.shape[1] * each
    own = float(sizes.sum())
    return {
        "estimating": {"flops": flops, "seconds": seconds},
        "solver": affinity.facts["flops"],
        "fine_tuning": {"flops": float(trials.flops.sum()), "seconds": tuned if known.any() else None},
        "a_subset": each,
        "subsets": len(sizes),
        "ratio_published": published / flops,
        "ratio_own": own * each / flops,
        "seconds_ratio_own": own * each_second / seconds if seconds and each_second else None,
    }
