"""A run's summary as the evaluation writes it: sixteen datasets, five groups, every optional part present."""

import functools
import hashlib
import math
from typing import Any

import numpy as np

from components.ensemble.figures import Image, draw_figures

GROUPS = [
    ["sentiment", "reviews", "emotion", "irony"],
    ["boolq", "rte", "cb", "wic"],
    ["topic", "intent", "banking"],
    ["toxicity", "hate", "spam"],
    ["copa", "paraphrase"],
]
NAMES = sorted(name for group in GROUPS for name in group)
GROUP_NAMES = [f"group-{k}" for k in range(len(GROUPS))]
METHODS = {"base": 0.46, "start": 0.67, "multitask": 0.715, "per_dataset": 0.722, "group": 0.73, "ensemble": 0.737}
MACRO_F1 = {"banking", "emotion", "hate"}


def digest(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()


def own(name: str) -> int:
    return next(k for k, group in enumerate(GROUPS) if name in group)


def example_summary() -> dict[str, Any]:
    """The whole dictionary, the same on every call and JSON-able."""
    rng = np.random.default_rng(0)
    results = _results(rng)
    ensemble = _average(results, "ensemble")
    return {
        "name": "support-desk",
        "run_id": "0f3c9a1be77d4b7e8a52a1c6d90e4b11",
        "created": "2026-11-21T10:42:07+00:00",
        "seed": 7,
        "settings": {"model": {"id": "Qwen/Qwen2.5-0.5B", "quantization": "nf4"}, "training": {"learning_rate": 2e-4}},
        "versions": {"loraloom": "0.1.0", "git_sha": digest("git")[:40], "torch": "2.6.0", "peft": "0.15.2"},
        "datasets": _datasets(),
        "groups": GROUPS,
        "partition": _partition(),
        "affinity": _affinity(rng),
        "weights": _weights(rng),
        "methods": list(METHODS),
        "results": results,
        "average": {method: _average(results, method) for method in METHODS},
        "comparisons": [
            _comparison(results, baseline, ensemble) for baseline in ["multitask", "per_dataset", "group", "start"]
        ],
        "curves": _curves(rng),
        "boosting": {
            name: {
                "kept": k % 2,
                "validation_loss_before": 0.61 - 0.03 * k,
                "validation_loss_after": 0.61 - 0.03 * k - 0.011 * (k % 2),
            }
            for k, name in enumerate(GROUP_NAMES)
        },
        "cost": _cost(),
        "artifacts": {label: {"key": f"{label}/{digest(label)[:16]}", "digest": digest(label)} for label in _ARTIFACTS},
        "mlflow": {
            "tracking_uri": "https://ada:sesame@mlflow.example.org",
            "experiment_id": "3",
            "run_id": digest("run")[:32],
            "ensemble_version": "4",
            "alias": "champion",
            "adapters": {name: {"run_id": digest(name)[:32], "version": "2"} for name in GROUP_NAMES},
        },
        "promotion": {
            "decision": "promoted",
            "reason": "better than version 3 on average, and no dataset lost more than 3.0 %",
            "numbers": {"difference": 0.0121, "low": 0.0043, "worst_dataset": -0.0062},
        },
    }


@functools.cache
def example_figures() -> dict[str, Image]:
    """Its figures, drawn once for all tests."""
    return draw_figures(example_summary())


_ARTIFACTS = ["start", "affinity", "partition", *GROUP_NAMES, "weights"]


def plan_only_summary() -> dict[str, Any]:
    """What `loraloom plan` leaves: groups and affinity, nothing trained."""
    keep = ["name", "run_id", "created", "seed", "settings", "versions", "datasets", "groups", "partition", "affinity"]
    whole = example_summary()
    return {key: whole[key] for key in keep}


def _datasets() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "metric": "macro_f1" if name in MACRO_F1 else "accuracy",
            "labels": [f"label {c}" for c in range(77 if name == "banking" else 2 + k % 4)],
            "rows": {"train": 400 + 250 * k, "validation": 300, "test": 500},
            "digest": digest("dataset", name),
            "dropped": {"duplicate of a test row": 3} if k % 5 == 0 else {},
            "truncated": {"test": 2, "train": 7} if k % 5 == 1 else {},
            "entropy": float(np.log(77 if name == "banking" else 2 + k % 4)),
        }
        for k, name in enumerate(NAMES)
    ]


def _partition() -> dict[str, Any]:
    loss = [0.861, 0.838, 0.824, 0.816, 0.8117, 0.8108, 0.8105, 0.8109, 0.8111, 0.8116]
    return {
        "expected": {"chosen": 0.8117, "one": 0.861, "each": 0.8152},
        "curve": [
            {"m": m, "loss": value, "standard_error": 0.0031 + 0.0002 * m} for m, value in enumerate(loss, start=1)
        ],
        "gain": {"mean": 0.0412, "standard_error": 0.0087},
        "bound": 5.412,
        "objective": 5.208,
        "gap": 0.0377,
        "co_membership": [[1.0 if own(a) == own(b) else 0.08 for b in NAMES] for a in NAMES],
        "method": "search",
        "scored": 20013,
        "complete": False,
        "kept_champion": False,
    }


def _affinity(rng: np.random.Generator) -> dict[str, Any]:
    together = np.array([[own(a) == own(b) for b in NAMES] for a in NAMES])
    matrix = np.where(together, 0.55, -0.25) + 0.22 * rng.normal(size=together.shape)
    errors = np.full(together.shape, 0.06)
    return {"datasets": NAMES, "matrix": matrix.tolist(), "standard_errors": errors.tolist(), "subsets": 400}


def _weights(rng: np.random.Generator) -> dict[str, Any]:
    rows = []
    for k, name in enumerate(NAMES):
        share = rng.dirichlet(np.full(len(GROUPS) + 1, 0.6)) * (0 if k % 3 == 0 else 0.5)
        share[own(name)] += 1 - share.sum()
        rows.append(np.where(share < 0.02, 0, share).tolist())
    temperatures = [1.0 + 0.2 * (k % 4) for k in range(len(NAMES))]
    return {"datasets": NAMES, "members": [*GROUP_NAMES, "multitask"], "matrix": rows, "temperatures": temperatures}


def _interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _results(rng: np.random.Generator) -> dict[str, Any]:
    ease = dict(zip(NAMES, rng.uniform(-0.14, 0.14, size=len(NAMES)), strict=True))
    results: dict[str, Any] = {}
    for name in NAMES:
        results[name] = {}
        for method, level in METHODS.items():
            right = float(np.clip(level + ease[name] + 0.018 * rng.normal(), 0.05, 0.97))
            results[name][method] = {
                "accuracy": _interval(right, 0.038),
                "macro_f1": _interval(right - 0.02, 0.041),
                "cross_entropy": _interval(1.6 * (1 - right) + 0.15, 0.05),
                "ece": _interval(0.04 + 0.1 * (1 - right), 0.015),
            }
    return results


def _own_metric(name: str) -> str:
    return "macro_f1" if name in MACRO_F1 else "accuracy"


def _average(results: dict[str, Any], method: str) -> dict[str, Any]:
    own_metric = float(np.mean([results[name][method][_own_metric(name)]["value"] for name in NAMES]))
    loss = float(np.mean([results[name][method]["cross_entropy"]["value"] for name in NAMES]))
    return {"metric": _interval(own_metric, 0.0102), "cross_entropy": _interval(loss, 0.014)}


def _comparison(results: dict[str, Any], baseline: str, ensemble: dict[str, Any]) -> dict[str, Any]:
    by_dataset = {}
    for name in NAMES:
        kind = _own_metric(name)
        gap = results[name]["ensemble"][kind]["value"] - results[name][baseline][kind]["value"]
        by_dataset[name] = {"difference": gap, "low": gap - 0.022, "high": gap + 0.022}
    gap = ensemble["metric"]["value"] - _average(results, baseline)["metric"]["value"]
    p_value = max(1 / 1001, math.erfc(abs(gap) / 0.0031 / math.sqrt(2)))
    return {
        "baseline": baseline,
        "difference": gap,
        "low": gap - 0.0061,
        "high": gap + 0.0061,
        "p_value": p_value,
        "by_dataset": by_dataset,
    }


def _curves(rng: np.random.Generator) -> dict[str, Any]:
    curves = {}
    for k, name in enumerate([*GROUP_NAMES, "multitask"]):
        points = []
        for epoch in (1.0, 2.0, 3.0)[: 3 - (k == 2)]:
            noise = float(0.01 * rng.normal())
            points.append(
                {
                    "epoch": epoch,
                    "train_loss": 0.75 * epoch**-0.6 + 0.05 * k + noise,
                    "validation_loss": 0.72 * epoch**-0.25 + 0.05 * k + noise,
                }
            )
        curves[name] = points
    return curves


def _cost() -> dict[str, Any]:
    def step(name: str, part: str | None, seconds: float, memory: float | None, flops: float, reused: bool = False):
        return {
            "step": name,
            "part": part,
            "seconds": seconds,
            "peak_memory_bytes": memory,
            "flops": flops,
            "reused": reused,
        }

    steps = [
        step("prepare", None, 21.4, None, 0),
        step("warm_start", None, 182.0, 6.1e9, 3.2e15),
        step("extract", "shard-0", 95.2, 7.4e9, 1.9e15),
        step("extract", "shard-1", 0.8, None, 0, reused=True),
        step("estimate", None, 48.0, 2.2e9, 0),
        step("partition", None, 12.6, 0.6e9, 0),
        *[step("train", name, 410.5 - 30 * k, 9.8e9, 1.62e16) for k, name in enumerate(GROUP_NAMES)],
        step("train", "multitask", 3905.0, 9.9e9, 8.0e16),
        step("boost", "group-0", 14.0, 6.3e9, 1.1e14),
        step("weigh", None, 1.1, None, 0),
        step("evaluate", None, 9.7, None, 0),
    ]
    return {"steps": steps, "training_flops": {"multitask": 8.0e16, "ours": 16.62e16}, "extra_flops_share": 1.0775}
