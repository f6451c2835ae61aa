"""What `judge` finds, made up: four datasets, two of which the estimates know nothing about."""

from typing import Any

import numpy as np

NAMES = ["cola", "sst2", "trec", "wic"]
KINDS = ("pearson", "spearman", "corrected_pearson", "corrected_spearman", "dataset_mean")


def interval(value: float, width: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def example_facts() -> dict[str, Any]:
    """The facts without a verdict."""
    rng = np.random.default_rng(0)
    agreement = {kind: interval(0.7) for kind in KINDS}
    nothing = dict.fromkeys(agreement)
    overall = {
        "reliability": interval(0.8),
        "noise_error": interval(0.02, 0.01),
        "predictors": {
            "surrogate": {**agreement, "relative_error": interval(0.05, 0.01)},
            "shifted": {**agreement, "relative_error": interval(0.03, 0.01)},
            "constant": {**nothing, "relative_error": interval(0.04, 0.01)},
            "features": agreement,
            "embeddings": agreement,
        },
        "advantages": {"features": interval(0.3), "embeddings": interval(0.02)},
    }
    ranks = {"cola": "by chance", "sst2": "better than chance", "trec": "better than chance", "wic": "by chance"}
    by_dataset = {
        name: {"subsets": 9, "reliability": interval(0.7), "relative_error": 0.04, "rank": rank, **agreement}
        for name, rank in ranks.items()
    }
    losses = {"relative": 0.004, "squared": 0.00002, "of_change": 0.05}
    error = losses | {f"{key}_spread": value / 3 for key, value in losses.items()}
    return {
        "datasets": NAMES,
        "seeds": 3,
        "subset_size": 2,
        "counts": {"random": 10, "pairs": 2, "subsets": 20},
        "overall": overall,
        "every_subset": overall,
        "by_dataset": by_dataset,
        "cells": [
            {
                "subset": f"subset-{k:03d}", "dataset": name, "random": k < 5,
                "true": rng.normal(1, 0.1, 3).tolist(), "surrogate": rng.normal(1, 0.1),
            }
            for k in range(8)
            for name in NAMES[:2]
        ],
        "partitions": [
            partition("chosen", 2, 0.70, None),
            partition("one", 1, 0.80, (0.1, 0.02)),
            partition("each", 4, 0.75, (0.05, 0.02)),
            partition("spectral", 2, 0.71, (0.01, 0.02)),
            partition("random", 2, 0.71, (0.01, 0.02)),
            partition("random-0", 2, 0.70, (0.00, 0.02)),
            partition("random-1", 2, 0.72, (0.02, 0.02)),
        ],
        "linearity": {
            "mean": [{"distance": d, "unprojected": error, "projected": error} for d in (0.0005, 0.001, 0.002, 0.01)],
            "subsets": [{}, {}],
            "solution_distance": 0.004,
            "trained_distance": 0.02,
        },
        "cost": {
            "estimating": {"flops": 1e12, "seconds": 100.0},
            "fine_tuning": {"flops": 5e13, "seconds": 5000.0},
            "a_subset": 1e11,
            "subsets": 15,
            "ratio_published": 120.0,
            "ratio_own": 90.0,
            "seconds_ratio_own": 80.0,
        },
    }  # fmt: skip


def partition(name: str, adapters: int, test: float, apart: tuple[float, float] | None) -> dict[str, Any]:
    against = None if apart is None else {"value": apart[0], "noise": apart[1], "clear": abs(apart[0]) > apart[1]}
    numbers = {
        "estimated": test,
        "validation": test,
        "test": test,
        "accuracy": 0.8,
        "accuracy_spread": 0.0123,
        "spread": 0.01,
    }
    return {"name": name, "adapters": adapters, "against_chosen": against, **numbers}
