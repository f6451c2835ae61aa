"""Rows under different adapters in one batch.

PEFT multiplies the whole batch with the base's weights once and adds to each row what its own adapter says, so rows of
several adapters (or the same row under several) cost one pass where a pass an adapter would load every weight again
and again. It pays where a pass is bound by that overhead, small requests above all. Where it is bound by arithmetic,
mixed rows only cost copies, so an adapter with rows enough goes through the model by itself.
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
ENOUGH_TOKENS = 1024  # of one adapter: from here on arithmetic is what takes the time


@dataclass(frozen=True)
class Item:
    """One row under one adapter: position ``row`` of ``examples``."""

    examples: Examples
    row: int
    adapter: str


@torch.inference_mode()
def adapter_logits(
    model: PeftModel,
    base: Base,
    items: Sequence[Item],
    batch_tokens: int = BATCH_TOKENS,
    enough_tokens: float = ENOUGH_TOKENS,
) -> list[np.ndarray]:
    """Label logits of each item, float32 [C of its dataset], in their order.

    Args:
        batch_tokens: of a batch, padding included.
        enough_tokens: an adapter with so many of its own shares no batch with others.

    Raises:
        ValueError: an adapter that the model does not have.
    """
    unknown = {item.adapter for item in items} - set(model.peft_config)
    if unknown:
        raise ValueError(f"no such adapters: {', '.join(sorted(unknown))}")
    out: list[np.ndarray] = [np.empty(0)] * len(items)
    for index in _batches(items, batch_tokens, enough_tokens):
        chosen = [items[i] for i in index]
        batch = collate([(item.examples, item.row) for item in chosen]).to(base.device)
        with _adapters(model, [item.adapter for item in chosen]):
            logits = answer_logits(model, batch).float().cpu().numpy()
        for i, item, row in zip(index, chosen, logits, strict=True):
            out[i] = row[: max(2, len(item.examples.label_tokens))]
    return out


def _batches(items: Sequence[Item], batch_tokens: int, enough_tokens: float) -> Iterator[list[int]]:
    """Positions of the items of each batch: rows of similar length, whatever their datasets; of one adapter where it
    has enough, else of several, those of an adapter side by side.
    """
    ids = [item.examples.ids[item.row] for item in items]
    by_adapter: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        by_adapter.setdefault(item.adapter, []).append(i)
    crowds, few = list[list[int]](), list[int]()
    for places in by_adapter.values():
        if sum(len(ids[i]) for i in places) >= enough_tokens:
            crowds.append(places)
        else:
            few += places
    for places in (*crowds, few):
        for index in length_batches([ids[i] for i in places], batch_tokens):
            yield sorted((places[j] for j in index), key=lambda i: items[i].adapter)


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
