"""Exact prediction with an ensemble: every adapter that counts is run, and their logits are added up."""

import json
import string
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from components.config import ModelConfig
from components.errors import UserError
from components.language_model import Base, label_logits, load_adapters, load_base
from components.prompts import encode

# Rows of W sum to one only up to rounding; a remainder this small is not worth a forward pass of the start.
NEGLIGIBLE = 1e-6


class EnsemblePredictor:
    """An ensemble ready to predict. Calls from several threads take turns: the active adapter is state of the model.

    Attributes:
        description: the parsed ``ensemble.json``.
        base: the base model in use.
    """

    def __init__(self, description: Mapping[str, Any], base: Base, folders: Mapping[str, Path]) -> None:
        self.description = description
        self.base = base
        used = {name for dataset in self._classified() for name in coefficients(description, dataset)}
        self._model = load_adapters(base, {name: folders[name] for name in sorted(used)}) if used else base.model
        self._turn = threading.Lock()

    @classmethod
    def load(cls, folder: Path, model: ModelConfig | None = None) -> "EnsemblePredictor":
        """Load an ensemble folder.

        Args:
            model: the base model to use instead of the one the ensemble names (a local copy, another device); its
                files must be the same.

        Raises:
            UserError: the base cannot be loaded, or is not the one the adapters were trained on.
        """
        description = json.loads((folder / "ensemble.json").read_text())
        base = load_base(model or base_config(description))
        expected = description["base"]["digest"]
        if base.digest != expected:
            raise UserError(
                f"the base model {base.config.id!r} is not the one the adapters were trained on: its digest is "
                f"{base.digest[:12]}..., the ensemble's is {expected[:12]}...",
                remedy=f"use {description['base']['id']} at revision {description['base']['revision']}",
            )
        return cls(description, base, {name: folder / path for name, path in adapter_folders(description).items()})

    def labels(self, dataset: str) -> list[str]:
        """The labels of ``dataset``, in the order of the probabilities."""
        return list(self._dataset(dataset)["labels"])

    def predict(self, dataset: str, fields: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Label probabilities, float32 [N, C].

        Args:
            dataset: whose template, labels and weights to use.
            fields: field name -> N texts; fields that the template does not name are ignored.

        Raises:
            UserError: an unknown or a completion dataset, a field is missing or not text, or lengths differ.
        """
        settings = self._dataset(dataset)
        chosen = _checked(dataset, settings["template"], fields)
        tokens = settings["label_token_ids"]
        rows = len(next(iter(chosen.values())))
        if rows == 0:
            return np.zeros((0, len(tokens)), np.float32)
        encoded = encode(settings["template"], chosen, self.base.tokenizer, self.description["base"]["max_length"])
        logits = np.zeros((rows, len(tokens)))
        with self._turn:
            for name, coefficient in coefficients(self.description, dataset).items():
                self._model.set_adapter(name)
                logits += coefficient * label_logits(self._model, self.base, encoded.ids, tokens)
        return softmax(logits, axis=1).astype(np.float32)

    def _classified(self) -> list[str]:
        return [name for name, settings in self.description["datasets"].items() if not settings["completion"]]

    def _dataset(self, name: str) -> Mapping[str, Any]:
        known = self.description["datasets"]
        if name not in known:
            raise UserError(f"this ensemble has no dataset {name!r}", remedy=f"it knows: {', '.join(sorted(known))}")
        if known[name]["completion"]:
            raise UserError(
                f"{name} is a completion dataset: it generates text and has no labels to choose from",
                remedy="serve its exported adapter with a text generation server that reads PEFT folders",
            )
        return known[name]


def base_config(description: Mapping[str, Any]) -> ModelConfig:
    """The base model that an ensemble names, on whatever device there is."""
    base = description["base"]
    return ModelConfig(**{key: base[key] for key in ("id", "revision", "quantization", "dtype", "max_length")})


def adapter_folders(description: Mapping[str, Any]) -> dict[str, str]:
    """Adapter name -> folder within the ensemble: ``start``, every group, every group's boosters."""
    folders = {"start": description["start"]["folder"]}
    for group in description["groups"]:
        folders[group["name"]] = group["folder"]
        for i, booster in enumerate(group["boosters"]):
            folders[_booster(group["name"], i)] = booster["folder"]
    return folders


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
            amounts[_booster(group["name"], i)] = weight * booster["eta"]
    amounts["start"] = 1.0 - sum(amounts.values())
    return {name: amount for name, amount in amounts.items() if abs(amount) > NEGLIGIBLE}


def _booster(group: str, index: int) -> str:
    return f"{group}-booster-{index}"


def _checked(dataset: str, template: str, fields: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The fields that the template names, complete, of text and of one length."""
    needed = list(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(template) if name))
    missing = [name for name in needed if name not in fields]
    if missing:
        raise UserError(
            f"{dataset} needs the fields {', '.join(needed)}; not given: {', '.join(missing)}",
            remedy="give every field its template names",
        )
    chosen = {name: list(fields[name]) for name in needed}
    wrong = {
        f"row {i}: {name} is {type(text).__name__}, not text"
        for name, texts in chosen.items()
        for i, text in enumerate(texts)
        if not isinstance(text, str)
    }
    if wrong:
        raise UserError(f"{dataset}: some fields hold no text", problems=tuple(sorted(wrong)[:10]))
    if len({len(texts) for texts in chosen.values()}) > 1:
        raise UserError(f"{dataset}: the fields have different numbers of rows")
    return chosen
