"""Rows under different adapters in one batch.

The whole batch is multiplied with the base's weights once, and each row gets what its own adapter adds, so rows of
several adapters (or the same row under several) cost one pass where a pass an adapter would load every weight again
and again. It pays where a pass is bound by that overhead, small requests above all. Where it is bound by arithmetic,
mixed rows only cost copies, so an adapter with rows enough goes through the model by itself.

PEFT has mixed batches too (``adapter_names``): a handful of small operations for each adapter in each layer. Here they
are two batched products a layer, whatever the number of adapters.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn.functional import pad

from components.examples import Examples, collate, length_batches
from components.language_model import Base, answer_logits

BATCH_TOKENS = 8192
ENOUGH_TOKENS = 512  # of one adapter: from here on arithmetic is what takes the time (benchmarks/serving/latency.py)


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

    order = sorted(set(names))
    row = torch.tensor([order.index(name) for name in names], device=model.device)
    nobody = ["__base__"] * len(names)  # PEFT's name for no adapter at all

    def base_only(_: torch.nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**options, "adapter_names": nobody}

    def add(layer: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        down, up = (part.index_select(0, row) for part in _stacked(layer, order))
        added = torch.bmm(torch.bmm(inputs[0].to(down.dtype), down.mT), up.mT)
        return output + added.to(output.dtype)

    handles = []
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            handles.append(layer.register_forward_pre_hook(base_only, with_kwargs=True))
            handles.append(layer.register_forward_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stacked(layer: Any, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """A of the layer's named adapters, [m, r, in], and B times the scaling, [m, out, r]; zeros fill smaller ranks."""
    downs: list[torch.Tensor] = [layer.lora_A[name].weight for name in names]
    ups: list[torch.Tensor] = [layer.lora_B[name].weight * layer.scaling[name] for name in names]
    missing = [max(len(down) for down in downs) - len(down) for down in downs]
    if any(missing):
        downs = [pad(down, (0, 0, 0, more)) for down, more in zip(downs, missing, strict=True)]
        ups = [pad(up, (0, more)) for up, more in zip(ups, missing, strict=True)]
    return torch.stack(downs), torch.stack(ups)
