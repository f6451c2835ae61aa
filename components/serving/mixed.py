"""Rows under different adapters in one batch.

PEFT multiplies the whole batch with the base's weights once and adds to each row what its own adapter says, so rows of
several adapters (or the same row under several) cost one pass where a pass an adapter would load every weight again
and again. It pays where a pass is bound by that overhead, small requests above all.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from components.examples import Examples, collate, length_batches
from components.language_model import Base, answer_logits

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Item:
    """One row under one adapter: position ``row`` of ``examples``."""

    examples: Examples
    row: int
    adapter: str


@torch.inference_mode()
def adapter_logits(
    model: PeftModel, base: Base, items: Sequence[Item], batch_tokens: int = BATCH_TOKENS
) -> list[np.ndarray]:
    """Label logits of each item, float32 [C of its dataset], in their order.

    Batches hold rows of similar length, whatever their datasets and adapters. The order of rows within a batch is by
    adapter, so that each adapter meets one run of rows.

    Raises:
        ValueError: an adapter that the model does not have.
    """
    unknown = {item.adapter for item in items} - set(model.peft_config)
    if unknown:
        raise ValueError(f"no such adapters: {', '.join(sorted(unknown))}")
    out: list[np.ndarray] = [np.empty(0)] * len(items)
    for index in length_batches([item.examples.ids[item.row] for item in items], batch_tokens):
        index = np.array(sorted(index.tolist(), key=lambda i: items[i].adapter))
        chosen = [items[i] for i in index]
        batch = collate([(item.examples, item.row) for item in chosen]).to(base.device)
        with _adapters(model, [item.adapter for item in chosen]):
            logits = answer_logits(model, batch).float().cpu().numpy()
        for i, item, row in zip(index, chosen, logits, strict=True):
            out[i] = row[: max(2, len(item.examples.label_tokens))]
    return out


@contextmanager
def _adapters(model: PeftModel, names: list[str]) -> Iterator[None]:
    """While open, row i of a batch goes through the adapter ``names[i]``."""
    if len(set(names)) == 1:  # the plain way spares the copies of mixed rows
        if model.active_adapter != names[0]:
            model.set_adapter(names[0])
        yield
        return

    def add(_: torch.nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**options, "adapter_names": names}

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    handles = [layer.register_forward_pre_hook(add, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
