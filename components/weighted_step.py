"""The step in the adapter's weights that coefficients of rows stand for: ``u = sum_i a_i grad h_i``.

A solution of the surrogate, or of a ridge fit, is a combination of the rows' gradients, so one backward pass weighted
with its coefficients makes the step itself. (Stepping along the transposed projection would predict the same margins
with a step far too long to stay linear.)
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from peft import PeftModel

from components.examples import Examples, collate, length_batches
from components.language_model import Base, answer_logits, margins


def weighted_gradients(
    model: PeftModel, base: Base, examples: Sequence[Examples], coefficients: Sequence[np.ndarray], batch_tokens: int
) -> dict[str, torch.Tensor]:
    """``sum_i a_i grad h_i`` for every trainable parameter by its name, the gradients taken where the adapter stands.

    Args:
        examples: of several datasets.
        coefficients: a, one array [M] a dataset.
    """
    model.eval()
    model.zero_grad()
    for part, weights in zip(examples, coefficients, strict=True):
        for index in length_batches(part.ids, batch_tokens):
            batch = collate([(part, int(i)) for i in index]).to(base.device)
            h = margins(answer_logits(model, batch), batch.label)
            (h * torch.from_numpy(weights[index]).to(h)).sum().backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def step_along(
    model: PeftModel, base: Base, examples: Sequence[Examples], coefficients: Sequence[np.ndarray], batch_tokens: int
) -> None:
    """Move the adapter by ``sum_i a_i grad h_i``; arguments as :func:`weighted_gradients`."""
    add_change(model, weighted_gradients(model, base, examples, coefficients, batch_tokens))


def add_change(model: PeftModel, change: Mapping[str, torch.Tensor]) -> None:
    """Move the adapter in place.

    Args:
        change: of parameters by name; those not named stay.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in change:
                parameter.add_(change[name])
