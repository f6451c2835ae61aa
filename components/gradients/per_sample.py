"""Per-sample gradients of the margin with respect to LoRA's A and B, one backward pass a batch.

A LoRA layer adds ``s B A x``. With ``u = A x`` kept in the forward pass and ``delta``, the gradient at B's output,
met in the backward pass, sample i's gradients are

    dB_i = sum_t delta_it u_it^T        dA_i = sum_t (B^T delta_it) x_it^T

so the only extra work is two small products a layer. The adapter's weights need no gradient of their own: the chain
rule runs through activations only, about 4 N T FLOPs a sample. At the raw initialisation B is zero, dA is exactly
zero and is not computed.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from components.errors import UserError
from components.examples import Examples, collate, length_batches
from components.gradients.projection import Projection
from components.language_model import Base, answer_logits, margins
from components.short_memory import is_out_of_memory
from components.tables import Features

_log = logging.getLogger(__name__)
Result = TypeVar("Result")

# Receives (parameter name, its gradients) for every LoRA parameter in one backward pass.
Sink = Callable[[str, torch.Tensor], None]


def projected_gradients(
    model: PeftModel,
    base: Base,
    examples: Examples,
    projection: Projection,
    batch_tokens: int,
    say: Callable[[str], None] = _log.warning,
    passed: Callable[[int], None] = lambda rows: None,
) -> Features:
    """Margins [M] and projected margin gradients [M, dim] of M examples of one dataset, in their order.

    Args:
        say: told when memory runs out and the batches that are left are made half as large.
        passed: told of every batch how many rows it had.

    Raises:
        UserError: the model has LoRA layers whose per-sample gradients this cannot take exactly, a gradient is not
            finite (the rows are named), or not even one row fits into memory.
    """
    features = np.zeros((len(examples), projection.dim), dtype=np.float32)
    margin = np.zeros(len(examples), dtype=np.float32)
    layers = lora_layers(model)
    waiting = list(length_batches(examples.ids, batch_tokens))
    while waiting:
        index = waiting[0]
        found = _unless_out_of_memory(partial(_batch, model, base, layers, examples, index, projection))
        if found is None:
            batch_tokens = _halved(examples, index, batch_tokens)
            say(f"out of memory at {len(index)} rows of {len(examples.ids[index[0]])} tokens: {batch_tokens} a batch")
            left = np.concatenate(waiting)
            waiting = [left[part] for part in length_batches([examples.ids[i] for i in left], batch_tokens)]
            continue
        waiting.pop(0)
        features[index], margin[index] = found
        _check_finite(examples.row[index], features[index], margin[index])
        passed(len(index))
    return Features(examples.row, features, margin)


def _batch(
    model: PeftModel,
    base: Base,
    layers: dict[str, LoraLayer],
    examples: Examples,
    index: np.ndarray,
    projection: Projection,
) -> tuple[np.ndarray, np.ndarray]:
    """Features [B, dim] and margins [B] of the examples at ``index``, one forward and one backward pass."""
    batch = collate([(examples, int(i)) for i in index]).to(base.device)
    sums = projection.sums(len(index))
    with watched(model, layers, len(index), lambda name, gradient: projection.accumulate(name, gradient, sums)):
        h = margins(answer_logits(model, batch), batch.label)
        h.sum().backward()
    return projection.projected(sums).cpu().numpy(), h.detach().float().cpu().numpy()


def _unless_out_of_memory(work: Callable[[], Result]) -> Result | None:
    """The work's result; None where memory ran out. By then everything that the work held is free again."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def _halved(examples: Examples, index: np.ndarray, batch_tokens: int) -> int:
    """Half the tokens that the batch at ``index`` holds, or that it might have held."""
    if len(index) == 1:
        raise UserError(
            f"memory does not hold the gradients of one row of {len(examples.ids[index[0]])} tokens",
            remedy="lower model.max_length or lora.rank, or give the step a machine with more memory",
        )
    return min(batch_tokens, len(index) * len(examples.ids[index[0]])) // 2


def lora_layers(model: PeftModel) -> dict[str, LoraLayer]:
    """The adapted layers by their name in the base model.

    Raises:
        UserError: an adapted layer is not a plain low-rank product (DoRA, embeddings, convolutions).
    """
    layers = {name: module for name, module in model.get_base_model().named_modules() if isinstance(module, LoraLayer)}
    adapter = model.active_adapter
    for name, layer in layers.items():
        plain = all(adapter in m and isinstance(m[adapter], torch.nn.Linear) for m in (layer.lora_A, layer.lora_B))
        if layer.use_dora.get(adapter) or not plain:
            raise UserError(
                f"per-sample gradients of the adapted layer {name} ({type(layer).__name__}) are not supported",
                remedy="adapt linear layers only: lora.targets: all-linear",
            )
    return layers


@contextmanager
def captured(model: PeftModel, layers: dict[str, LoraLayer], rows: int, sink: Sink) -> Iterator[None]:
    """:func:`watched`, with every gradient flat: [B, p], in the order of the parameter's own elements."""
    with watched(model, layers, rows, lambda name, gradient: sink(name, gradient.flatten(1))):
        yield


@contextmanager
def watched(model: PeftModel, layers: dict[str, LoraLayer], rows: int, sink: Sink) -> Iterator[None]:
    """While open, one forward and backward pass over ``rows`` sequences hands every LoRA gradient to ``sink``.

    Gradients come as [B, m, n] in the parameter's shape; those of B are transposed views.

    Raises:
        UserError: a layer does not see whole sequences, sees them twice, or (on leaving) has seen none: then its
            gradient is not the one these products make.
    """
    adapter = model.active_adapter
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handles: list[torch.utils.hooks.RemovableHandle] = []
    seen: set[str] = set()
    for name, layer in layers.items():
        a, b = layer.lora_A[adapter], layer.lora_B[adapter]
        watch = _watch_both if torch.as_tensor(b.weight).any() else _watch_b
        handles += watch(name, a, b, rows, seen, sink)
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
        if unseen := [name for name in layers if name not in seen]:
            raise _inexact(unseen[0], "took no part in the forward pass (experts kept as one tensor, the output layer)")
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)


def _watch_both(
    name: str, a: torch.nn.Module, b: torch.nn.Module, rows: int, seen: set[str], sink: Sink
) -> list[torch.utils.hooks.RemovableHandle]:
    """Hooks on one layer's A and B. What they keep lives until this layer's backward step.

    The chain of gradients begins at the first layer's u and not at the embeddings, as it does while training: below
    it nothing is adapted, so nothing is differentiated.
    """
    kept: dict[str, torch.Tensor] = {}

    def after_a(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], u: torch.Tensor) -> None:
        _check_sequences(name, u, rows, seen)
        kept["u"], x = u.detach(), inputs[0].detach()
        u.requires_grad_(True).register_hook(lambda du: sink(f"{name}.A", _outer(du, x)))

    def after_b(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        out.register_hook(lambda delta: sink(f"{name}.B", _outer(kept.pop("u"), delta).transpose(1, 2)))

    return [a.register_forward_hook(after_a), b.register_forward_hook(after_b)]


def _watch_b(
    name: str, a: torch.nn.Module, b: torch.nn.Module, rows: int, seen: set[str], sink: Sink
) -> list[torch.utils.hooks.RemovableHandle]:
    """The same where B is zero: only dB is wanted, and no gradient passes through B and A to the layers below."""
    kept: dict[str, torch.Tensor] = {}

    def after_a(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], u: torch.Tensor) -> torch.Tensor:
        _check_sequences(name, u, rows, seen)
        kept["u"] = u.detach()
        return kept["u"]

    def after_b(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        out.requires_grad_(True).register_hook(
            lambda delta: sink(f"{name}.B", _outer(kept.pop("u"), delta).transpose(1, 2))
        )

    return [a.register_forward_hook(after_a), b.register_forward_hook(after_b)]


def _outer(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``sum_t left_it right_it^T`` of each sample, [B, r, n] from [B, T, r] and [B, T, n].

    The long side comes last whichever parameter it is for: matrix products with rows of only r numbers are several
    times slower.
    """
    return torch.bmm(left.transpose(1, 2), right)


def _check_sequences(name: str, u: torch.Tensor, rows: int, seen: set[str]) -> None:
    if u.dim() != 3 or u.shape[0] != rows or name in seen:
        raise _inexact(name, "does not see whole sequences once each (expert routing, shared layers)")
    seen.add(name)


def _inexact(name: str, why: str) -> UserError:
    return UserError(
        f"the layer {name} {why}",
        remedy="name other layers in lora.targets, for instance the attention projections",
    )


def _check_finite(rows: np.ndarray, features: np.ndarray, margin: np.ndarray) -> None:
    bad = ~(np.isfinite(features).all(axis=1) & np.isfinite(margin))
    if bad.any():
        raise UserError(
            f"gradients are not finite for {int(bad.sum())} rows: {', '.join(str(row) for row in rows[bad][:5])}",
            remedy="use model.dtype: float32, or look for damaged weights",
        )
