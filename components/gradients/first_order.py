"""How far the first-order model of the margin holds: what it says of a step against what the step does.

The adapter is moved from where gradients are taken, along the step u of a surrogate's solution, until its weight change
has a given share of the base's norm. There the true margin ``h`` is compared with ``h* + t g.u``: with the true
gradients, and with the projected ones, for which ``g.w`` stands in for ``g.u``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel
from scipy.optimize import brentq

from components.distance import base_norm, change_norm
from components.examples import Examples, collate, length_batches
from components.gradients.per_sample import captured, lora_layers
from components.language_model import Base, answer_logits, margins

Step = Mapping[str, torch.Tensor]
"""A change of the adapter's weights by parameter name."""


@dataclass(frozen=True)
class Errors:
    """How wrong a prediction [M] of moved margins is.

    Attributes:
        relative: root mean squared error by the root mean squared margin.
        squared: its square, which is how the papers give it (residual sum of squares by sum of squares).
        of_change: root mean squared error by the root mean squared *change* of the margin since there: 1 is as good
            as saying that nothing changes.
    """

    relative: float
    squared: float
    of_change: float


def errors(predicted: np.ndarray, actual: np.ndarray, before: np.ndarray) -> Errors:
    """Compare predicted with actual margins, [M] each; ``before``: those where gradients were taken."""
    residual = np.sqrt(np.mean((predicted - actual) ** 2))
    relative = float(residual / np.sqrt(np.mean(actual**2)))
    return Errors(relative, relative**2, float(residual / np.sqrt(np.mean((actual - before) ** 2))))


def derivatives(
    model: PeftModel, base: Base, examples: Examples, step: Step, batch_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Margins where the adapter stands, and their derivatives along ``step``, ``g_i . u`` unprojected: float64 [M]."""
    margin, slope = np.zeros(len(examples)), np.zeros(len(examples))
    layers, change = lora_layers(model), {_short(name): value.flatten().float() for name, value in step.items()}
    for index in length_batches(examples.ids, batch_tokens):
        batch = collate([(examples, int(i)) for i in index]).to(base.device)
        sums = torch.zeros(len(index), device=base.device)

        def add(name: str, gradient: torch.Tensor, sums: torch.Tensor = sums) -> None:
            sums.add_(gradient.float() @ change[name])

        with captured(model, layers, len(index), add):
            h = margins(answer_logits(model, batch), batch.label)
            h.sum().backward()
        margin[index], slope[index] = h.detach().cpu().numpy(), sums.cpu().numpy()
    return margin, slope


@torch.inference_mode()
def moved_margins(model: PeftModel, base: Base, examples: Sequence[Examples], batch_tokens: int) -> np.ndarray:
    """Margins where the adapter now stands, of all examples one after the other, float64 [sum of M]."""
    found = []
    for part in examples:
        margin = np.zeros(len(part))
        for index in length_batches(part.ids, batch_tokens):
            batch = collate([(part, int(i)) for i in index]).to(base.device)
            margin[index] = margins(answer_logits(model, batch), batch.label).cpu().numpy()
        found.append(margin)
    return np.concatenate(found)


@contextmanager
def moved(model: PeftModel, step: Step, times: float) -> Iterator[None]:
    """While open, the adapter stands ``times`` the step away; afterwards exactly where it was."""
    named = dict(model.named_parameters())
    before = {name: named[name].detach().clone() for name in step}
    try:
        with torch.no_grad():
            for name, change in step.items():
                named[name].add_(change, alpha=times)
        yield
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                named[name].copy_(weight)


class Ruler:
    """Relative distance from where the adapter stands along one step (``components/distance.py``).

    Args:
        scaling: of the LoRA layers, alpha by rank.
    """

    def __init__(self, model: PeftModel, base: Base, step: Step, scaling: float) -> None:
        self._start = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self._step, self._scaling, self._norm = step, scaling, base_norm(base)

    def distance(self, times: float) -> float:
        """How far ``times`` the step is."""
        there = {name: p + times * self._step.get(name, torch.zeros_like(p)) for name, p in self._start.items()}
        return change_norm(there, self._start, self._scaling) / self._norm

    def times(self, distance: float) -> float:
        """How many times the step it takes to get so far.

        Raises:
            ValueError: the step is zero.
        """
        least, most = 0.0, 1.0
        if self.distance(most) == 0:
            raise ValueError("a step of length zero leads nowhere")
        while self.distance(most) < distance:
            least, most = most, 2 * most
        return float(brentq(lambda times: self.distance(times) - distance, least, most, rtol=1e-6))


def _short(name: str) -> str:
    """A parameter's name as ``per_sample`` says it: ``model.layers.0.q_proj.A`` of PEFT's full name."""
    layer, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
    return f"{layer}.{rest[0]}"
