"""Compare gradients taken in batches with gradients taken one row at a time, on any model and any rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from components.examples import Examples, collate
from components.gradients.per_sample import captured, lora_layers
from components.language_model import Base, answer_logits, margins

# Largest relative difference that rounding explains: sums over a row's tokens in another order, at 24 and at 8 bits.
TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-1}
FLOOR = 1e-3  # of a row's whole gradient: a parameter's share below it is measured against this


@dataclass(frozen=True)
class Agreement:
    """What the comparison found.

    Attributes:
        rows: how many were compared.
        parameters: how many LoRA matrices each has a gradient of.
        largest: largest relative difference of a row's gradient with respect to one matrix.
        where: that matrix.
        tolerance: what rounding explains.
    """

    rows: int
    parameters: int
    largest: float
    where: str
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the difference is rounding; NaN is not."""
        return self.largest <= self.tolerance


def compare_gradients(model: PeftModel, base: Base, rows: Sequence[tuple[Examples, int]]) -> Agreement:
    """Gradients of all ``rows`` in one padded batch against ordinary backpropagation of each, alone and unpadded.

    Raises:
        UserError: the model has LoRA layers whose per-sample gradients cannot be taken exactly.
    """
    batched: dict[str, torch.Tensor] = {}
    together = collate(rows).to(base.device)
    with captured(model, lora_layers(model), len(rows), batched.__setitem__):
        margins(answer_logits(model, together), together.label).sum().backward()
    largest, where = 0.0, next(iter(batched), "")
    for i, row in enumerate(rows):
        single = _single(model, base, row, list(batched))
        whole = torch.stack([gradient.norm() for gradient in single.values()]).norm()
        for name, gradient in single.items():
            error = (batched[name][i].float() - gradient).norm() / torch.maximum(gradient.norm(), FLOOR * whole)
            if not error <= largest:  # so that NaN is kept
                largest, where = float(error), name
    return Agreement(len(rows), len(batched), largest, where, TOLERANCE[base.config.dtype])


def _single(model: PeftModel, base: Base, row: tuple[Examples, int], names: list[str]) -> dict[str, torch.Tensor]:
    """One row's gradients by autograd, by the names that :func:`captured` uses, flat."""
    weights: dict[str, torch.Tensor] = {}
    for name, layer in lora_layers(model).items():
        pair = {f"{name}.A": layer.lora_A, f"{name}.B": layer.lora_B}
        weights |= {
            key: part[model.active_adapter].get_parameter("weight") for key, part in pair.items() if key in names
        }
    batch = collate([row]).to(base.device)
    h = margins(answer_logits(model, batch), batch.label).sum()
    found = torch.autograd.grad(h, list(weights.values()))
    return {name: gradient.flatten().float() for name, gradient in zip(weights, found, strict=True)}
