"""Logits of the ensemble's parts, put together from what GPU steps left behind."""

from collections.abc import Mapping

import numpy as np

from components.inputs import START
from components.label_logits import logits_label, passed_logits
from components.step import Step
from components.tables import Logits


def boosters_of(references: Mapping[str, str], group: str) -> list[str]:
    """Names of the boosters a group kept, in order: ``group-0-0``, ``group-0-1``..."""
    return sorted(label.removeprefix("booster/") for label in references if label.startswith(f"booster/{group}-"))


def member_logits(step: Step, references: Mapping[str, str], member: str, dataset: str, split: str) -> np.ndarray:
    """A member's logits, a group's boosters included, float64 [N, C]: ``z_g + sum eta (z_b - z*)``."""
    logits = passed_logits(step, references, member, dataset, split).logits.astype(np.float64)
    start = passed_logits(step, references, START, dataset, split).logits
    for name in boosters_of(references, member):
        step_up = passed_logits(step, references, name, dataset, split).logits - start
        logits += step.config.boosting.shrinkage * step_up
    return logits


def ensemble_logits(start: np.ndarray, members: np.ndarray, weights: np.ndarray, temperature: float) -> np.ndarray:
    """``F = (z* + sum_k w_k (z_k - z*)) / T``, [N, C].

    Args:
        start: z* [N, C].
        members: z_k [m, N, C].
        weights: w [m].
        temperature: T.
    """
    return np.asarray(start + np.tensordot(weights, members - start[None], axes=1)) / temperature


def has_logits(references: Mapping[str, str], model: str, dataset: str, split: str) -> bool:
    """Whether an earlier step passed these logits on."""
    return logits_label(model, dataset, split) in references


def start_logits(step: Step, references: Mapping[str, str], dataset: str, split: str) -> Logits:
    """Logits at theta*."""
    return passed_logits(step, references, START, dataset, split)
