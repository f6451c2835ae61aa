"""The base model, its adapters and tokenized rows of one step, each loaded at first use.

A step whose results are all in the store never asks for any of them: it loads no model, wants no GPU, and does not
even import torch, which takes longer than all else that such a step does.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.base_model import model_folder
from components.prepared import PreparedDataset, SplitName
from components.step import Step

if TYPE_CHECKING:
    from peft import PeftModel

    from components.examples import Examples
    from components.flops import PassCost
    from components.language_model import Base


class OnDemand:
    """What a GPU step works with."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._examples: dict[tuple[str, str], Examples] = {}
        self._model: PeftModel | None = None
        self._names: dict[Path, str] = {}

    @cached_property
    def base(self) -> "Base":
        """The base model."""
        from components.language_model import load_base

        return load_base(self._step.config.model)

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer, without the model: counting what is cut takes no more."""
        from transformers import AutoTokenizer

        model = self._step.config.model
        return AutoTokenizer.from_pretrained(model_folder(model), trust_remote_code=model.trust_remote_code)

    def examples(self, dataset: PreparedDataset, split: SplitName, row: np.ndarray | None = None) -> "Examples":
        """A split's tokenized rows.

        Args:
            row: ids of those wanted, ascending as all rows are; all by default.
        """
        from components.examples import tokenize

        where = (dataset.name, split)
        if where not in self._examples:
            limit = self._step.config.model.max_length
            self._examples[where] = tokenize(dataset, split, self.tokenizer, limit)
        every = self._examples[where]
        return every if row is None else every.take(np.flatnonzero(np.isin(every.row, row)))

    def trainable(self, folder: Path) -> "PeftModel":
        """The model with a copy of the adapter in ``folder`` to be trained in place. To be asked for once, first."""
        from components.language_model import load_adapters

        if self._model is not None:
            raise RuntimeError("a trainable adapter has to be the model's first: checkpoints hold all of them")
        self._model = load_adapters(self.base, {"default": folder}, trainable=True)
        return self._model

    def adapter(self, folder: Path) -> "PeftModel":
        """The model with the adapter in ``folder`` active; the base is shared by all of a step's adapters."""
        from components.language_model import load_adapters

        if folder in self._names and self._model is not None:
            self._model.set_adapter(self._names[folder])
            return self._model
        name = f"adapter{len(self._names)}"
        if self._model is None:
            self._model = load_adapters(self.base, {name: folder})
        else:
            self._model.load_adapter(folder, adapter_name=name)
            self._model.set_adapter(name)
        self._names[folder] = name
        return self._model.eval()

    def cost(self, model: "PeftModel") -> "PassCost":
        """FLOPs of a pass through ``model``."""
        from components.flops import pass_cost

        return pass_cost(self.base, model)

    def logits(
        self,
        folder: Path | None,
        dataset: PreparedDataset,
        split: SplitName,
        passed: Callable[[int], None] = lambda rows: None,
    ) -> Callable[[np.ndarray], np.ndarray]:
        """A function from positions in the split to label logits under the adapter in ``folder`` (None: the base).

        Args:
            passed: told of every batch how many rows it had.
        """

        def compute(index: np.ndarray) -> np.ndarray:
            from components.language_model import example_logits

            examples = self.examples(dataset, split).take(index)
            if folder is not None:
                return example_logits(self.adapter(folder), self.base, examples, passed=passed)
            if self._model is None:
                return example_logits(self.base.model, self.base, examples, passed=passed)
            with self._model.disable_adapter():
                return example_logits(self._model, self.base, examples, passed=passed)

        return compute

    def spent(self, examples: Sequence["Examples"]) -> tuple[int, int]:
        """Tokens and sum of squared lengths of a pass over ``examples``, for the FLOPs formula."""
        lengths = np.array([len(ids) for part in examples for ids in part.ids], dtype=np.int64)
        return int(lengths.sum()), int(np.square(lengths).sum())
