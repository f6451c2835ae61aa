"""What ``ensemble.json`` says: the base, where each adapter is, and how their logits are added up."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.config import ModelConfig

# Rows of W sum to one only up to rounding; a remainder this small is not worth a forward pass of the start.
NEGLIGIBLE = 1e-6
BASE_MODEL = "LORALOOM_BASE_MODEL"  # a local folder with the same files, for servers without a way to the base


def base_config(description: Mapping[str, Any], folder: Path) -> ModelConfig:
    """The base model to load: the folder ``LORALOOM_BASE_MODEL`` names, the bundled one, or the one by reference."""
    base = description["base"]
    settings = {key: base.get(key) for key in ("id", "revision", "quantization", "dtype", "max_length", "storage")}
    bundled = str(folder / base["folder"]) if base.get("folder") else None
    if here := os.environ.get(BASE_MODEL) or bundled:
        settings |= {"id": here, "revision": None, "storage": None}
    return ModelConfig.model_validate(settings)


def adapter_folders(description: Mapping[str, Any]) -> dict[str, str]:
    """Adapter name -> folder within the ensemble: ``start``, every group, its boosters, the merged ones."""
    folders = {"start": description["start"]["folder"]}
    for group in description["groups"]:
        folders[group["name"]] = group["folder"]
        for i, booster in enumerate(group["boosters"]):
            folders[booster_name(group["name"], i)] = booster["folder"]
    return folders | {merged_name(name): one["folder"] for name, one in description.get("merged", {}).items()}


def coefficients(description: Mapping[str, Any], dataset: str) -> dict[str, float]:
    """What each adapter's logits are multiplied with for ``dataset``; adapters that don't count are left out.

    With W the dataset's row of weights and ``z_g = z_k + sum_b eta_b (z_b - z*)`` a group with its boosters,
    ``F = z* + sum_k W_k (z_g - z*)`` is linear in the adapters' logits. The coefficients sum to one, and the start's
    vanishes where W does sum to one and no booster counts.
    """
    amounts: dict[str, float] = {}
    for weight, group in zip(description["weights"][dataset], description["groups"], strict=True):
        amounts[group["name"]] = weight
        for i, booster in enumerate(group["boosters"]):
            amounts[booster_name(group["name"], i)] = weight * booster["eta"]
    amounts["start"] = 1.0 - sum(amounts.values())
    return {name: amount for name, amount in amounts.items() if abs(amount) > NEGLIGIBLE}


def booster_name(group: str, index: int) -> str:
    """What the ``index``-th booster of a group is called."""
    return f"{group}-booster-{index}"


def merged_name(dataset: str) -> str:
    """What a dataset's merged adapter is called."""
    return f"merged-{dataset}"
