"""What ``ensemble.json`` says: the base, where each adapter is, and how their logits are added up."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import __version__
from components.config import ModelConfig
from components.errors import UserError

log = logging.getLogger(__name__)

FILE = "ensemble.json"
# Raised when the folder's layout changes, what its numbers mean, or what a version's own code (pyfunc_model.py) calls
# here: another one is then refused.
SCHEMA = 3

# Rows of W sum to one only up to rounding; a remainder this small is not worth a forward pass of the start.
NEGLIGIBLE = 1e-6
BASE_MODEL = "LORALOOM_BASE_MODEL"  # a local folder with the same files, for servers without a way to the base


def read_description(folder: Path) -> dict[str, Any]:
    """The parsed ``ensemble.json`` of an ensemble's folder.

    A version carries the code that packed it, and plain MLflow loads it with that. loraloom's own commands and server
    run their own code on any version's files; where another release made them, that is logged as a warning.

    Raises:
        UserError: this release does not know the folder's layout.
    """
    description: dict[str, Any] = json.loads((folder / FILE).read_text())
    version = description.get("loraloom_version")
    maker = f"loraloom {version}" if version else "an older loraloom"
    if description["schema"] == 1:  # which had no temperatures
        description |= {"schema": 2, "temperatures": dict.fromkeys(description["weights"], 1.0)}
    if description["schema"] == 2:  # whose members were groups only
        description |= {"schema": 3, "members": description.pop("groups")}
    if description["schema"] != SCHEMA:
        raise UserError(
            f"the ensemble was made by {maker} in layout {description['schema']}; this is loraloom {__version__}, "
            f"which reads layouts up to {SCHEMA}",
            remedy=f"use {maker} for it, or register it anew with this one (loraloom run)",
        )
    if version != __version__:
        log.warning("the ensemble was made by %s; loraloom %s answers", maker, __version__)
    return description


def dataset_settings(description: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the ensemble says of one dataset: template, labels, tokens. Raises ``UserError`` for an unknown one."""
    known: Mapping[str, Any] = description["datasets"]
    if name not in known:
        raise UserError(f"this ensemble has no dataset {name!r}", remedy=f"it knows: {', '.join(sorted(known))}")
    settings: Mapping[str, Any] = known[name]
    return settings


def base_config(description: Mapping[str, Any], folder: Path) -> ModelConfig:
    """The base model to load: the folder ``LORALOOM_BASE_MODEL`` names, the bundled one, or the one by reference."""
    base = description["base"]
    settings = {key: base.get(key) for key in ("id", "revision", "quantization", "dtype", "max_length", "storage")}
    bundled = str(folder / base["folder"]) if base.get("folder") else None
    if here := os.environ.get(BASE_MODEL) or bundled:
        settings |= {"id": here, "revision": None, "storage": None}
    return ModelConfig.model_validate(settings)


def adapter_folders(description: Mapping[str, Any]) -> dict[str, str]:
    """Adapter name -> folder within the ensemble: ``start``, every member, its boosters, the merged ones."""
    folders = {"start": description["start"]["folder"]}
    for member in description["members"]:
        folders[member["name"]] = member["folder"]
        for i, booster in enumerate(member["boosters"]):
            folders[booster_name(member["name"], i)] = booster["folder"]
    return folders | {merged_name(name): one["folder"] for name, one in description.get("merged", {}).items()}


def weights_told(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the step `weigh` found, as ``ensemble.json`` says it: weights [m] and temperature of each dataset."""
    return {
        "weights": {name: row["weights"] for name, row in rows.items()},
        "temperatures": {name: row["temperature"] for name, row in rows.items()},
    }


def coefficients(description: Mapping[str, Any], dataset: str) -> dict[str, float]:
    """What each adapter's logits are multiplied with for ``dataset``; adapters that don't count are left out.

    With W the dataset's row of weights and ``y_k = z_k + sum_b eta_b (z_b - z*)`` a member with its boosters,
    ``F = z* + sum_k W_k (y_k - z*)`` is linear in the adapters' logits. The coefficients sum to one, and the start's
    vanishes where W does sum to one and no booster counts. The sum is then divided by the dataset's temperature.
    """
    amounts: dict[str, float] = {}
    for weight, member in zip(description["weights"][dataset], description["members"], strict=True):
        amounts[member["name"]] = weight
        for i, booster in enumerate(member["boosters"]):
            amounts[booster_name(member["name"], i)] = weight * booster["eta"]
    amounts["start"] = 1.0 - sum(amounts.values())
    return {name: amount for name, amount in amounts.items() if abs(amount) > NEGLIGIBLE}


def booster_name(member: str, index: int) -> str:
    """What the ``index``-th booster of a member is called."""
    return f"{member}-booster-{index}"


def merged_name(dataset: str) -> str:
    """What a dataset's merged adapter is called."""
    return f"merged-{dataset}"
