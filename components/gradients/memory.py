"""What extraction takes of memory: measured on one row, said before the first batch, and held against what is free.

A GPU that runs out says so, and :mod:`per_sample` then halves its batches; a process on a CPU is killed without a word.
So batches that cannot fit are made smaller beforehand, and never in silence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from peft import PeftModel
from torch.autograd.graph import saved_tensors_hooks

from components.examples import Examples, collate
from components.gradients.per_sample import captured, lora_layers
from components.language_model import Base, answer_logits, margins

SHARE = 0.8  # of the free memory that a batch may take: allocators round up, and others live here too
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that extraction takes.

    Attributes:
        weights: base and adapter.
        projection: the bins of every adapter weight.
        features: the rows of one dataset.
        token: kept between forward and backward pass for each token of a batch, padding included.
        tokens: of a batch: those asked for, or as many as fit.
        free: what this process may still take; the weights are in place already.
    """

    weights: int
    projection: int
    features: int
    token: int
    tokens: int
    free: int

    def __str__(self) -> str:
        """One line for the log."""
        batch = f"{self.tokens} tokens x {self.token / 2**10:.0f} KiB = {_size(self.token * self.tokens)}"
        return (
            f"memory: weights {_size(self.weights)}, projection {_size(self.projection)}, features "
            f"{_size(self.features)}, a batch {batch} (measured on one row); {_size(self.free)} are free"
        )


def plan(model: PeftModel, base: Base, examples: Examples, dim: int, batch_tokens: int) -> MemoryPlan:
    """Measure one row of ``examples``, the longest, and fit batches of ``batch_tokens`` tokens into what is free."""
    weights = {w.data_ptr(): w.nbytes for w in (*model.parameters(), *model.buffers())}
    longest = max(range(len(examples)), key=lambda i: len(examples.ids[i]))
    token = kept_bytes(model, base, examples, [longest]) // len(examples.ids[longest])
    adapter = sum(w.numel() for name, w in model.named_parameters() if f".{model.active_adapter}.weight" in name)
    free = free_bytes(base.device)
    needed, tokens = 8 * adapter + 4 * dim * len(examples), batch_tokens
    while tokens > 1 and needed + token * tokens > SHARE * free:
        tokens //= 2
    return MemoryPlan(sum(weights.values()), 8 * adapter, 4 * dim * len(examples), token, tokens, free)


def kept_bytes(model: PeftModel, base: Base, examples: Examples, rows: list[int]) -> int:
    """Bytes that a forward pass over ``rows``, as one batch, keeps for the backward pass and for the gradients."""
    batch = collate([(examples, i) for i in rows]).to(base.device)
    weights = {w.untyped_storage().data_ptr() for w in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    layers = lora_layers(model)
    watched = [layer.lora_A[model.active_adapter] for layer in layers.values()]
    handles = [a.register_forward_hook(lambda _, inputs, u: (keep(inputs[0]), keep(u))[1]) for a in watched]
    try:
        with captured(model, layers, len(rows), lambda *_: None), saved_tensors_hooks(keep, lambda tensor: tensor):
            margins(answer_logits(model, batch), batch.label)
    finally:
        for handle in handles:
            handle.remove()
    return sum(kept.values())


def free_bytes(device: torch.device) -> int:
    """Memory this process may still take on ``device``; on a host, within its control group's limit."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    free = psutil.virtual_memory().available
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return max(0, free)


class Budget:
    """Tokens a batch may hold on this machine. Measured and said once, before the first batch."""

    def __init__(self, batch_tokens: int, say: Callable[[str], None]) -> None:
        self._wanted, self._say = batch_tokens, say
        self._plan: MemoryPlan | None = None

    def tokens(self, model: PeftModel, base: Base, examples: Examples, dim: int) -> int:
        """As many as were asked for, or as fit."""
        if self._plan is None:
            found = self._plan = plan(model, base, examples, dim, self._wanted)
            self._say(str(found))
            if found.tokens < self._wanted:
                self._say(f"memory is short: batches of {found.tokens} tokens rather than {self._wanted}")
        return self._plan.tokens


def _size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
