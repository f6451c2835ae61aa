"""Prediction with an ensemble: exact, every adapter that counts in one batch, or with one merged adapter a dataset."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import softmax

from components.config import ModelConfig
from components.errors import UserError
from components.examples import Examples
from components.language_model import Base, load_adapters, load_base
from components.prompts import encode, template_fields
from components.serving.description import (
    adapter_folders,
    base_config,
    coefficients,
    dataset_settings,
    merged_name,
    read_description,
)
from components.serving.mixed import BATCH_TOKENS, Item, adapter_logits
from components.serving.router import joined, read_router, text_features

Mode = Literal["auto", "exact", "merged"]


@dataclass(frozen=True)
class Request:
    """Rows of one dataset: field name -> N texts. Fields that the dataset's template does not name are ignored."""

    dataset: str
    fields: Mapping[str, Sequence[str]]


class EnsemblePredictor:
    """An ensemble ready to predict. Calls from several threads take turns: the active adapter is state of the model.

    Adapters of the default mode are loaded at once, others when a request first needs them.

    Attributes:
        description: the parsed ``ensemble.json``.
        base: the base model in use.
    """

    def __init__(self, description: Mapping[str, Any], base: Base, folder: Path) -> None:
        self.description, self.base = description, base
        self._folders = {name: folder / path for name, path in adapter_folders(description).items()}
        used = sorted({name for dataset in self.datasets for name in self.plan(dataset)}) or ["start"]
        self._model = load_adapters(base, {name: self._folders[name] for name in used})
        routed = description.get("router")
        self._router = read_router(folder / routed["folder"], routed["datasets"]) if routed else None
        self._turn = threading.Lock()

    @classmethod
    def load(cls, folder: Path, model: ModelConfig | None = None) -> "EnsemblePredictor":
        """Load an ensemble folder.

        Args:
            model: the base model to use instead of the one that is bundled or named (a local copy, another device);
                its files must be the same.

        Raises:
            UserError: the base cannot be loaded, or is not the one the adapters were trained on.
        """
        description = read_description(folder)
        base = load_base(model or base_config(description, folder))
        check_base(base, description)
        return cls(description, base, folder)

    @property
    def datasets(self) -> list[str]:
        """The datasets it has labels for."""
        return [name for name, settings in self.description["datasets"].items() if not settings["completion"]]

    def labels(self, dataset: str) -> list[str]:
        """The labels of ``dataset``, in the order of the probabilities."""
        return list(self._dataset(dataset)["labels"])

    def fields(self, dataset: str) -> list[str]:
        """The fields that the template of ``dataset`` names, in its order."""
        return template_fields(self._dataset(dataset)["template"])

    def plan(self, dataset: str, mode: Mode = "auto") -> dict[str, float]:
        """The adapters whose logits are added up for ``dataset``, and what each is multiplied with.

        ``merged`` is one adapter. ``auto`` is merged where its measured disagreement allows, else exact.
        """
        merged = self.description.get("merged", {}).get(dataset)
        if merged and (mode == "merged" or (mode == "auto" and merged["default"])):
            return {merged_name(dataset): 1.0}
        return coefficients(self.description, dataset)

    def predict(self, dataset: str, fields: Mapping[str, Sequence[str]], mode: Mode = "auto") -> np.ndarray:
        """Label probabilities of N rows of one dataset, float32 [N, C]; see :meth:`predict_many`."""
        return self.predict_many([Request(dataset, fields)], mode)[0]

    def predict_many(
        self, requests: Sequence[Request], mode: Mode = "auto", batch_tokens: int = BATCH_TOKENS
    ) -> list[np.ndarray]:
        """Label probabilities of each request, float32 [N, C], all rows and adapters in common batches.

        Raises:
            UserError: an unknown or a completion dataset, a field is missing or not text, or lengths differ.
        """
        items: list[Item] = []
        shares: list[tuple[int, int, float]] = []
        for number, request in enumerate(requests):
            examples = self._examples(request)
            for adapter, coefficient in self.plan(request.dataset, mode).items():
                items += [Item(examples, row, adapter) for row in range(len(examples))]
                shares += [(number, row, coefficient) for row in range(len(examples))]
        with self._turn:
            self._load({item.adapter for item in items})
            logits = adapter_logits(self._model, self.base, items, batch_tokens)
        totals = [np.zeros((_rows(request), len(self.labels(request.dataset)))) for request in requests]
        for (number, row, coefficient), found in zip(shares, logits, strict=True):
            totals[number][row] += coefficient * found
        temperatures = self.description["temperatures"]
        return [
            softmax(total / temperatures[request.dataset], axis=1).astype(np.float32)
            for request, total in zip(requests, totals, strict=True)
        ]

    def route(self, fields: Mapping[str, Sequence[str]]) -> list[str]:
        """The dataset that each of N rows seems to belong to, of those whose template's fields are all given.

        Raises:
            UserError: the ensemble has no router, or no dataset takes these fields.
        """
        if self._router is None:
            raise UserError(
                "a row names no dataset, and this ensemble has no router",
                remedy=f"name one of: {', '.join(self.datasets)}",
            )
        allowed = [name for name in self._router.names if set(self.fields(name)) <= set(fields)]
        if not allowed:
            raise UserError(f"no dataset takes the fields {', '.join(sorted(fields))}", remedy="name a dataset")
        # What no template reads (an id, an address, a label) is not what the router was trained on.
        read = {field for name in allowed for field in self.fields(name)}
        texts = joined({name: column for name, column in fields.items() if name in read})
        if what := next(filter(None, map(_no_text, texts)), ""):
            raise UserError(f"a text that names no dataset {what}", remedy="give every field a text in UTF-8")
        with self._turn:
            features = text_features(self.base, texts, self.description["base"]["max_length"])
        return self._router.route(features, allowed)

    def _load(self, adapters: set[str]) -> None:
        for name in sorted(adapters - set(self._model.peft_config)):
            self._model.load_adapter(self._folders[name], adapter_name=name)
            self._model.eval()

    def _examples(self, request: Request) -> Examples:
        settings = self._dataset(request.dataset)
        chosen = _checked(request, self.fields(request.dataset))
        limit = self.description["base"]["max_length"]
        ids = encode(settings["template"], chosen, self.base.tokenizer, limit).ids
        nothing = np.zeros(len(ids), np.int64)
        return Examples(nothing, ids, nothing, settings["label_token_ids"])

    def _dataset(self, name: str) -> Mapping[str, Any]:
        settings = dataset_settings(self.description, name)
        if settings["completion"]:
            raise UserError(
                f"{name} is a completion dataset: it generates text and has no labels to choose from",
                remedy="serve its exported adapter with a text generation server that reads PEFT folders",
            )
        return settings


def check_base(base: Base, description: Mapping[str, Any]) -> None:
    """Raises ``UserError`` where ``base`` is not the model that the ensemble's adapters were trained on."""
    expected = description["base"]["digest"]
    if base.digest != expected:
        raise UserError(
            f"the base model {base.config.id!r} is not the one the adapters were trained on: its digest is "
            f"{base.digest[:12]}..., the ensemble's is {expected[:12]}...",
            remedy=f"use {description['base']['id']} at revision {description['base']['revision']}",
        )


def _no_text(value: object) -> str:
    """Why no tokenizer takes ``value``; '' where one does."""
    if not isinstance(value, str):
        return f"is {type(value).__name__}, not text"
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        return "is not valid UTF-8"
    return ""


def _rows(request: Request) -> int:
    return len(next(iter(request.fields.values())))


def _checked(request: Request, needed: Sequence[str]) -> dict[str, list[str]]:
    """The fields that the template names, complete, of text and of one length."""
    dataset, fields = request.dataset, request.fields
    missing = [name for name in needed if name not in fields]
    if missing:
        raise UserError(
            f"{dataset} needs the fields {', '.join(needed)}; not given: {', '.join(missing)}",
            remedy="give every field its template names",
        )
    chosen = {name: list(fields[name]) for name in needed}
    wrong = {
        f"row {i}: {name} {what}"
        for name, texts in chosen.items()
        for i, text in enumerate(texts)
        if (what := _no_text(text))
    }
    if wrong:
        problems = tuple(sorted(wrong)[:10])
        raise UserError(f"{dataset}: some fields hold no text", problems=problems, remedy="give texts in UTF-8")
    if len({len(texts) for texts in fields.values()}) > 1:
        raise UserError(f"{dataset}: the fields have different numbers of rows", remedy="give each field all rows")
    return chosen
