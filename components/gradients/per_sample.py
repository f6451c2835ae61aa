"""Per-sample gradients of the margin with respect to LoRA's A and B, one backward pass a batch.

A LoRA layer adds ``s B A x``. With ``u = A x`` kept in the forward pass and ``delta``, the gradient at B's output,
met in the backward pass, sample i's gradients are

    dB_i = sum_t delta_it u_it^T        dA_i = sum_t (B^T delta_it) x_it^T

so the only extra work is two small products a layer. The adapter's weights need no gradient of their own: the chain
rule runs through activations only, about 4 N T FLOPs a sample. At the raw initialisation B is zero, dA is exactly
zero and is not computed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from components.errors import UserError
from components.examples import Examples, collate, length_batches
from components.gradients.projection import Projection
from components.language_model import Base, answer_logits, margins
from components.tables import Features

# Receives (parameter name, gradients [B, p]) for every LoRA parameter in one backward pass.
Sink = Callable[[str, torch.Tensor], None]


def projected_gradients(
    model: PeftModel,
    base: Base,
    examples: Examples,
    projection: Projection,
    batch_tokens: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Features:
    """Margins [M] and projected margin gradients [M, dim] of M examples of one dataset, in their order.

    Raises:
        UserError: the model has LoRA layers whose per-sample gradients this cannot take exactly, or a gradient is
            not finite (the rows are named).
    """
    features = np.zeros((len(examples), projection.dim), dtype=np.float32)
    margin = np.zeros(len(examples), dtype=np.float32)
    layers = lora_layers(model)
    for index in length_batches(examples.ids, batch_tokens):
        batch = collate([(examples, int(i)) for i in index]).to(base.device)
        out = torch.zeros(projection.dim, len(index), device=base.device)

        def project(name: str, gradient: torch.Tensor, out: torch.Tensor = out) -> None:
            projection.add(name, gradient, out)

        with captured(model, layers, len(index), project):
            h = margins(answer_logits(model, batch), batch.label)
            h.sum().backward()
        features[index] = out.T.cpu().numpy()
        margin[index] = h.detach().float().cpu().numpy()
        _check_finite(examples.row[index], features[index], margin[index])
        progress(len(index))
    return Features(examples.row, features, margin)


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
    """While open, one forward and backward pass over ``rows`` sequences hands every LoRA gradient to ``sink``."""
    adapter = model.active_adapter
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inner: Any = model.get_base_model()
    handles = [
        inner.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_(True))
    ]
    for name, layer in layers.items():
        handles += _watch(name, layer.lora_A[adapter], layer.lora_B[adapter], rows, sink)
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)


def _watch(
    name: str, a: torch.nn.Module, b: torch.nn.Module, rows: int, sink: Sink
) -> list[torch.utils.hooks.RemovableHandle]:
    """Hooks on one layer's A and B. What they keep lives until this layer's backward step."""
    kept: dict[str, torch.Tensor] = {}
    with_a = bool(torch.as_tensor(b.weight).any())

    def after_a(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], u: torch.Tensor) -> None:
        if u.dim() != 3 or u.shape[0] != rows or "u" in kept:
            raise UserError(
                f"the layer {name} does not see whole sequences once each (expert routing, shared layers)",
                remedy="name other layers in lora.targets, for instance the attention projections",
            )
        kept["u"] = u.detach()
        if with_a:
            x = inputs[0].detach()
            u.register_hook(lambda du: sink(f"{name}.A", torch.einsum("btr,bti->bri", du, x).flatten(1)))

    def after_b(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        out.register_hook(
            lambda delta: sink(f"{name}.B", torch.einsum("bto,btr->bor", delta, kept.pop("u")).flatten(1))
        )

    return [a.register_forward_hook(after_a), b.register_forward_hook(after_b)]


def _check_finite(rows: np.ndarray, features: np.ndarray, margin: np.ndarray) -> None:
    bad = ~(np.isfinite(features).all(axis=1) & np.isfinite(margin))
    if bad.any():
        raise UserError(
            f"gradients are not finite for {int(bad.sum())} rows: {', '.join(str(row) for row in rows[bad][:5])}",
            remedy="use model.dtype: float32, or look for damaged weights",
        )
